"""Other runtimes and precisions: how far they are from fp32, and what is refused."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, read_output, run_tfbatch, tfbatch_env
from tfbatch.batches import Feeds
from tfbatch.bundles.manifest import Graph
from tfbatch.errors import BadConfiguration, DeviceUnavailable, UsageError
from tfbatch.host.machine import is_overflowing, processor_flags
from tfbatch.runtimes.device import (
    arithmetic,
    choose_precision,
    faster_choice,
    find_device,
    is_proved,
    open_session,
)
from tfbatch.runtimes.openvino_session import has_bf16
from tfbatch.session import Device

SENTIMENT = ROOT / "models" / "sentiment"
REVIEWS = ROOT / "build" / "data" / "reviews.parquet"
needs_vnni = pytest.mark.skipif(is_overflowing(processor_flags()), reason="this processor has neither VNNI nor AMX")
needs_bf16 = pytest.mark.skipif(not has_bf16(), reason="this processor has no bfloat16")


def graph_of_proofs(**proofs: bool) -> Graph:
    """A graph that was compared in these ways, their words joined by `_`."""
    found = {way.replace("_", " "): is_near for way, is_near in proofs.items()}
    return Graph(file="", layers=1, fused={}, expected={}, tolerance=1e-4, parity=[], proofs=found)


GRAPHS = {
    "fp32": graph_of_proofs(cpu_fp32_f32=True, openvino_bf16_bf16=True),
    "int8": graph_of_proofs(cpu_int8_f32=True, openvino_int8_bf16=True),
}


def scored(folder: Path, *options: object, rows: int = 300) -> tuple[pa.Table, dict[str, Any]]:
    """The first reviews with their predictions, and the summary."""
    words = [REVIEWS, "-m", SENTIMENT, "--input-column", "text", "--limit", rows, "-o", folder, *options]
    done = run_tfbatch("run", *words)
    assert done.code == 0, done.err
    return read_output(folder), done.result


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """By onnxruntime, in fp32."""
    return scored(tmp_path_factory.mktemp("exact") / "out")[0]


def changed(found: pa.Table, exact: pa.Table) -> int:
    return pc.sum(pc.not_equal(found["predicted_label"], exact["predicted_label"])).as_py() or 0


def distance(found: pa.Table, exact: pa.Table) -> float:
    """The largest difference of scores of the same label."""
    same = pc.equal(found["predicted_label"], exact["predicted_label"])
    both = pc.subtract(found["predicted_score"], exact["predicted_score"]).filter(same)
    return float(pc.max(pc.abs(both)).as_py())


@pytest.mark.parametrize(
    "options", [("--batch-tokens", 64), ("--batch-tokens", 4096), ("--threads", 1), ("--batch-tokens", "auto")]
)
def test_fp32_results_do_not_depend_on_how_they_are_computed(
    options: tuple[object, ...], exact: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found, _ = scored(tmp_path / "out", *options)
    assert changed(found, exact) == 0
    assert distance(found, exact) <= 1e-6


def test_openvino_gives_onnxruntimes_labels_in_fp32(exact: pa.Table, tmp_path: Path) -> None:
    found, summary = scored(tmp_path / "out", "--device", "openvino")
    assert (summary["device"], summary["precision"]) == ("openvino", "fp32")
    assert changed(found, exact) == 0
    assert distance(found, exact) <= 1e-5


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "int8"),
        pytest.param("openvino", "int8", marks=needs_vnni),
        pytest.param("openvino", "bf16", marks=needs_bf16),
    ],
)
def test_reduced_precision_changes_next_to_no_label(
    device: str, precision: str, exact: pa.Table, tmp_path: Path
) -> None:
    found, summary = scored(tmp_path / "out", "--device", device, "--precision", precision)
    assert (summary["device"], summary["precision"]) == (device, precision)
    assert changed(found, exact) <= 0.01 * len(exact)
    assert 0 < distance(found, exact) < 0.2


FIRST_CALLS = """
import sys
from pathlib import Path
from threading import Barrier
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from tfbatch.runtimes.device import find_device, open_session

model, barrier = open_session(Path(sys.argv[1]), find_device("openvino"), threads=4)._model, Barrier(4)

def call(request, length):
    ones = np.ones((1, length), np.int64)
    barrier.wait()
    return request.infer({"input_ids": ones, "attention_mask": ones, "token_type_ids": ones}, share_inputs=True)[0]

sys.setswitchinterval(1e-6)  # so that one is interrupted in the middle, if all are as far
requests = [model.create_infer_request() for _ in range(4)]
with ThreadPoolExecutor(4) as pool:
    print([len(made) for made in pool.map(call, requests, (2, 3, 4, 5))])
"""


def test_first_calls_of_openvino_do_not_wait_for_one_another_for_ever(text_bundle: Path) -> None:
    command = [sys.executable, "-c", FIRST_CALLS, str(text_bundle / "model.onnx")]
    done = subprocess.run(command, env=tfbatch_env(), check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout == "[1, 1, 1, 1]\n"


def test_of_each_shape_the_first_call_of_openvino_goes_alone(
    text_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(text_bundle / "model.onnx", find_device("openvino"), "fp32", threads=4)
    under_way: list[int] = []
    together: list[list[int]] = []

    def slowly(feeds: Feeds) -> Feeds:
        length = feeds["input_ids"].shape[1]
        under_way.append(length)
        together.append(list(under_way))
        time.sleep(0.05)
        under_way.remove(length)
        return feeds

    monkeypatch.setattr(session, "_run", slowly)
    batches = [{"input_ids": np.ones((1, length))} for length in (2, 3, 3, 4, 4, 2, 5, 5, 5, 5, 5, 5)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(session.run, batches)) == batches
    assert max(map(len, together)) > 1  # other shapes do not wait
    assert all(lengths.count(length) < 2 for lengths in together for length in (3, 4))
    assert max(lengths.count(5) for lengths in together) > 1  # nor do those of a shape that is known


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=needs_vnni)])
def test_openvinos_results_do_not_depend_on_threads(precision: str, tmp_path: Path) -> None:
    options = ("--device", "openvino", "--precision", precision)
    one, _ = scored(tmp_path / "one", *options, "--threads", 1, rows=200)
    two, _ = scored(tmp_path / "two", *options, "--threads", 2, rows=200)
    assert one.equals(two)


def test_a_bundle_tells_how_far_each_device_and_precision_is_from_torch() -> None:
    graphs = json.loads((SENTIMENT / "tfbatch.json").read_text())["graphs"]
    reduced = graphs["int8"]["fused"]
    assert (reduced["Attention"], reduced["MultiHeadAttention"]) == (0, 6)
    assert reduced["QuantizeLinear"] > 20 > reduced["MatMulNBits"]  # of 25 values that products read
    assert {"Attention": 0, "MultiHeadAttention": 6}.items() <= graphs["fp32"]["fused"].items()
    for precision, graph in graphs.items():
        ways = {(record["device"], record["precision"]) for record in graph["parity"]}
        assert ("cpu", precision) in ways
        assert ("openvino", precision) in ways or (precision == "int8" and is_overflowing(processor_flags()))
    size = {name: (SENTIMENT / graph["file"]).stat().st_size for name, graph in graphs.items()}
    assert size["int8"] < 0.75 * size["fp32"]  # the embeddings stay as they are


def test_a_precision_that_a_device_lacks_is_refused_before_anything_is_read() -> None:
    gpu, cpu = Device(runtime="cuda"), find_device("cpu")
    with pytest.raises(UsageError, match="--device openvino"):
        choose_precision(cpu, "bf16", GRAPHS)
    with pytest.raises(UsageError, match="is for processors"):
        choose_precision(gpu, "int8", GRAPHS)
    assert choose_precision(gpu, "auto", GRAPHS | {"fp16": graph_of_proofs()}) == "fp16"
    assert choose_precision(cpu, "auto", GRAPHS) == "fp32"


@pytest.mark.parametrize("flags", [{"sse2"}, {"sse2", "avx2"}, {"sse2", "avx2", "avx512f"}])
def test_openvinos_static_int8_is_refused_where_its_sums_would_overflow(
    flags: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino, static = find_device("openvino"), {"int8": replace(GRAPHS["int8"], fused={"QuantizeLinear": 1})}
    monkeypatch.setattr("tfbatch.runtimes.device.processor_flags", lambda: flags)
    with pytest.raises(DeviceUnavailable, match="neither VNNI nor AMX"):
        choose_precision(openvino, "int8", static)
    assert choose_precision(find_device("cpu"), "int8", static) == "int8"
    assert choose_precision(openvino, "int8", GRAPHS) == "int8"  # in blocks it computes in float32 there
    for enough in ({*flags, "avx_vnni"}, {"asimd", "asimddp"}, set[str]()):
        monkeypatch.setattr("tfbatch.runtimes.device.processor_flags", lambda enough=enough: enough)
        assert choose_precision(openvino, "int8", static) == "int8"


def test_a_way_to_compute_that_was_found_too_far_off_is_refused() -> None:
    cpu = find_device("cpu")
    graphs = {"fp32": graph_of_proofs(cpu_fp32_f32=True), "int8": graph_of_proofs(cpu_int8_f32=False)}
    with pytest.raises(BadConfiguration, match="too far from its checkpoint"):
        choose_precision(cpu, "int8", graphs)
    assert is_proved(cpu, "fp32", {"fp32": graph_of_proofs()}) is True  # of before there were several ways
    assert is_proved(find_device("openvino"), "fp32", graphs) is None


def test_a_budget_that_an_output_was_begun_with_is_kept_for_the_rest_of_it(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pq.write_table(pa.table({"text": ["good film", "bad film"] * 50}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out", "--rows-per-part", 50]
    assert run_tfbatch(*words, "--batch-tokens", 77).code == 0
    next((tmp_path / "out").glob("part-*-0000000050-*")).unlink()
    done = run_tfbatch(*words, "--batch-tokens", "auto")
    assert (done.code, done.result["batch_tokens"]) == (0, 77)
    assert not (tmp_path / "cache").exists()


def test_what_decides_the_bytes_tells_bf16_from_fp32() -> None:
    device = find_device("openvino")
    assert arithmetic(device, "fp32") == "f32"
    assert arithmetic(find_device("cpu"), "int8") == "f32"
    assert arithmetic(device, "int8") == ("bf16" if has_bf16() else "f32")


def test_the_summary_says_what_would_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = find_device("cpu")
    monkeypatch.setattr("tfbatch.runtimes.device.processor_flags", lambda: {"avx512_bf16", "avx512_vnni"})
    assert faster_choice(cpu, "fp32", GRAPHS) == "--device openvino --precision int8"
    assert faster_choice(cpu, "fp32", {"fp32": GRAPHS["fp32"]}) == "--device openvino --precision bf16"
    assert faster_choice(cpu, "fp32", {"fp32": graph_of_proofs()}) is None
    assert faster_choice(cpu, "int8", GRAPHS) is None
    monkeypatch.setattr("tfbatch.runtimes.device.processor_flags", set)
    assert faster_choice(cpu, "fp32", GRAPHS) is None


def test_a_found_budget_is_kept_and_a_broken_cache_is_made_anew(
    text_bundle: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "tfbatch" / "batch_tokens.json"
    file.parent.mkdir()
    file.write_text("{ no JSON")
    words = ["run", reviews, "-m", text_bundle, "--batch-tokens", "auto", "--overwrite", "-o", tmp_path / "out"]
    assert run_tfbatch(*words).code == 0
    found = json.loads(file.read_text())
    ((key, budget),) = found.items()
    assert budget in (128, 256, 512, 1024)
    file.write_text(json.dumps({key: 77}))
    assert run_tfbatch(*words).code == 0
    assert json.loads(file.read_text()) == {key: 77}  # taken, not tried out again


def test_few_rows_say_nothing_of_what_is_fastest(
    text_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they gave would be kept for large inputs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pq.write_table(pa.table({"text": ["good film", "bad film"]}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out"]
    assert run_tfbatch(*words, "--batch-tokens", "auto").result["batch_tokens"] == 512
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_costs_no_run(
    text_bundle: Path, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "file"))
    done = run_tfbatch("run", reviews, "-m", text_bundle, "--batch-tokens", "auto", "-o", tmp_path / "out")
    assert done.code == 0, done.err


def test_the_summary_says_where_the_time_went(text_bundle: Path, tmp_path: Path) -> None:
    texts = ["good film", "bad film", "good film"]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet")
    result = run_tfbatch("run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out").result
    assert result["repeated_rows"] == 1
    assert list(result["busy_seconds"]) == ["load", "read", "prepare", "compute", "finish", "write"]
    assert set(result["waited_seconds"]) == set(result["busy_seconds"])
    assert result["bottleneck"] in result["busy_seconds"]
