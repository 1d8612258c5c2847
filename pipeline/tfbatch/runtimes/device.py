"""From what was asked for to where a graph runs, and how precisely: all of it had, or refused."""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from tfbatch.bundles.manifest import Graph, graph_of, way_of
from tfbatch.errors import BadConfiguration, DeviceUnavailable, UsageError
from tfbatch.host.machine import INT8, is_overflowing, processor_flags
from tfbatch.host.stop import Stop
from tfbatch.runtimes.bound_session import BoundSession
from tfbatch.runtimes.onnxruntime_session import OnnxRuntimeSession, cuda_problem, load_runtime
from tfbatch.runtimes.openvino_session import OpenVinoSession, has_bf16, load_openvino
from tfbatch.runtimes.reduced_session import ReducedSession
from tfbatch.session import Device, Reduction, Session

BF16 = {"avx512_bf16", "amx_bf16"}  # as Linux names them


def find_devices(asked: str, memory: float | None = None) -> list[Device]:
    """What `--device` names: see `find_device`, or `cuda:0,1` for several GPUs, each once; with so much of
    their memory, in GiB.

    Raises:
        UsageError: memory is asked for that is not a GPU's.
    """
    match = re.fullmatch(r"cuda:(\d+(?:,\d+)+)", asked)
    names = [f"cuda:{index}" for index in dict.fromkeys(map(int, match[1].split(",")))] if match else [asked]
    devices = [find_device(name) for name in names]
    if memory is None:
        return devices
    if not devices[0].is_cuda:
        raise UsageError(f"--gpu-memory is for GPUs; --device {asked} is {devices[0].name} here")
    return [replace(device, memory=int(memory * 2**30)) for device in devices]


def find_device(asked: str) -> Device:
    """`auto`, `cpu`, `openvino`, `cuda` or `cuda:N` to a device, without making a session.

    Raises:
        UsageError: another word.
        DeviceUnavailable: the device cannot be had.
    """
    match = re.fullmatch(r"(auto|cpu|openvino)|cuda(?::(\d+))?", asked)
    if not match:
        raise UsageError(f"--device is auto, cpu, openvino, cuda, cuda:N or cuda:N,M, not {asked}")
    if asked == "openvino":
        load_openvino()
        return Device(runtime="openvino")
    index = int(match[2] or 0)
    problem = None if asked == "cpu" else cuda_problem(index)
    if asked == "cpu" or (asked == "auto" and problem):
        load_runtime()
        return Device(runtime="cpu")
    if problem:
        raise DeviceUnavailable(f"--device {asked}: {problem}. Use --device cpu to run on the processor.")
    return Device(runtime="cuda", index=index)


def choose_precision(device: Device, asked: str, graphs: Mapping[str, Graph]) -> str:
    """As asked, or fp16 on CUDA where the bundle has it, else fp32.

    Raises:
        UsageError: the device does not compute so.
        DeviceUnavailable: the processor does not.
        BadConfiguration: so computed, the bundle was found too far from its checkpoint.
    """
    if asked == "auto":
        asked = "fp16" if device.is_cuda and "fp16" in graphs else "fp32"
    if asked == "bf16" and device.runtime != "openvino":
        raise UsageError("--precision bf16 needs --device openvino; without it choose fp32, fp16 or int8")
    if asked == "bf16" and not has_bf16():
        other = "fp32" if is_overflowing(processor_flags()) else "int8"
        raise DeviceUnavailable(f"--precision bf16: this processor has neither AVX512-BF16 nor AMX; {other} may serve")
    if asked == "int8" and device.is_cuda:
        raise UsageError("--precision int8 is for processors: add --device cpu or --device openvino")
    is_static = asked == "int8" and "int8" in graphs and graphs["int8"].fused.get("QuantizeLinear", 0) > 0
    if is_static and device.runtime == "openvino" and is_overflowing(processor_flags()):
        raise DeviceUnavailable(
            "--device openvino --precision int8: this processor has neither VNNI nor AMX, without which sums of 8-bit "
            "products overflow there; --device cpu computes them in more bits"
        )
    if is_proved(device, asked, graphs) is False:
        raise BadConfiguration(
            f"--device {device.name} --precision {asked}: when the bundle was made, it was found too far from its "
            f"checkpoint to be used so; `tfbatch verify` shows the figures"
        )
    return asked


def is_proved(device: Device, precision: str, graphs: Mapping[str, Graph]) -> bool | None:
    """Whether export found a bundle near enough to its checkpoint as it is computed here; None: it was not
    compared so. Bundles of before there were several ways were compared in fp32 by onnxruntime."""
    graph = graphs.get(graph_of(precision))
    way = {"device": device.name, "precision": precision, "arithmetic": arithmetic(device, precision)}
    proofs = {way_of({}): True} | (graph.proofs if graph else {})
    return proofs.get(way_of(way))


def arithmetic(device: Device, precision: str) -> str:
    """The type that activations are computed in: bf16 where OpenVINO is asked for it, and with int8 where
    there is some; f16 on GPUs. A processor computes a graph in fp16 in f32: its weights are what was rounded."""
    if device.runtime == "openvino" and precision in ("bf16", "int8") and has_bf16():
        return "bf16"
    return "f16" if precision == "fp16" and device.is_cuda else "f32"


def faster_choice(device: Device, precision: str, graphs: Mapping[str, Graph]) -> str | None:
    """What would be faster than fp32 on this processor and is proved, as it is typed; it is another job,
    for another output. None where nothing is known to be."""
    if device.is_cuda or precision != "fp32":
        return None
    flags = processor_flags()
    for choice, graph, instructions in (("int8", "int8", INT8), ("bf16", "fp32", BF16)):
        proofs = graphs[graph].proofs if graph in graphs else {}
        proved = any(is_near for way, is_near in proofs.items() if way.startswith(f"openvino {choice} "))
        if proved and flags & instructions:
            install = "" if find_spec("openvino") else "pip install 'tfbatch[openvino]', then "
            return f"{install}--device openvino --precision {choice}"
    return None


def open_session(
    graph: Path,
    device: Device,
    precision: str = "fp32",
    threads: int = 1,
    stop: Stop | None = None,
    output: str | None = None,
    reduction: Reduction | None = None,
) -> Session:
    """A graph on a device; `threads` is how many threads will call it at once, `output` what is wanted of
    it where that is not the first one, `reduction` what is made of that where it is not all.

    Raises:
        BadConfiguration: the graph cannot be loaded.
        DeviceUnavailable: the device does not run.
    """
    stop = stop or Stop()
    if device.is_cuda:
        return BoundSession(graph, device, stop, output, reduction)
    session: Session = (
        OpenVinoSession(graph, arithmetic(device, precision), threads, stop, output)
        if device.runtime == "openvino"
        else OnnxRuntimeSession(graph, device, stop, output)
    )
    return session if reduction is None else ReducedSession(session, reduction)
