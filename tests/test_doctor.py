"""What is said of a machine has been tried out on it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import run_tfbatch, tfbatch_env
from tfbatch.bundles.tiny_graph import one_operator
from tfbatch.commands.doctor import attention_kernel, compute_attention, describe, examine, try_device
from tfbatch.host.machine import INT8, available_memory, processor_flags
from tfbatch.host.nvidia import driver_problem, find_gpus
from tfbatch.runtimes.device import BF16
from tfbatch.runtimes.onnxruntime_session import WORK, cuda_problem, work_on_processor

no_gpu = pytest.mark.skipif(cuda_problem(0) is None, reason="there is a GPU here")


@no_gpu
def test_the_doctor_tells_in_a_few_lines_what_works_and_why_cuda_does_not() -> None:
    done = run_tfbatch("doctor")
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert len(lines) <= 8
    assert lines[0].startswith("tfbatch ")
    assert f"onnxruntime {onnxruntime.__version__}" in lines[0]
    assert "cpu: runs graphs in fp32 and fp16" in lines
    for precision, instructions in (("int8", INT8), ("bf16", BF16)):
        (line,) = (line for line in lines if line.startswith(f"{precision}: "))
        assert ("nor AMX is here" in line) is not bool(processor_flags() & instructions)
    assert "openvino: runs graphs in fp32 and fp16" in lines
    why = [line for line in lines if line.startswith("cuda: ")]
    assert "pip install 'tfbatch[gpu]'" in why[0] or "NVIDIA driver" in why[0]
    assert done.result["status"] == "works"
    assert done.result["works"] == ["cpu fp32", "cpu fp16", "openvino fp32", "openvino fp16"]
    assert (done.result["gpus"], done.result["attention_kernel"]) == ([], None)


def test_where_nothing_works_the_doctor_says_what_to_install_and_ends_with_69() -> None:
    program = (
        "import sys; sys.modules.update(dict.fromkeys(['onnxruntime', 'openvino']))\n"
        "from tfbatch.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "doctor"]
    done = subprocess.run(command, env=tfbatch_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 69
    for extra in ("cpu", "gpu", "openvino"):
        assert f"'tfbatch[{extra}]'" in done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["status"], result["works"]) == ("nothing works", [])


@no_gpu
def test_cuda_that_is_not_there_ends_a_run_with_69(text_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good film"]}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out", "--device", "cuda"]
    done = run_tfbatch(*words)
    assert (done.code, (tmp_path / "out").exists()) == (69, False)
    assert "--device cpu" in done.err
    assert all(problem in done.err for problem in (str(driver_problem(0)), "'tfbatch[gpu]'")), done.err


@no_gpu
def test_the_driver_is_asked_apart_from_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NVIDIA driver" in str(driver_problem(0))
    assert find_gpus() == []
    facts = examine()
    assert [line for line in describe(facts) if facts["driver_problem"] in line]


def test_a_graph_written_by_hand_is_an_onnx_file() -> None:
    arrays = {"a": np.ones((200, 3), np.float16), "b": np.ones(2, np.int32)}
    model = onnx.load_from_string(one_operator("Attention", arrays, domain="com.microsoft", num_heads=300))
    (node,) = model.graph.node
    assert (node.domain, list(node.input), node.attribute[0].i) == ("com.microsoft", ["a", "b"], 300)
    assert [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim] == [200, 3]
    onnx.checker.check_model(onnx.load_from_string(one_operator("MatMul", {"a": arrays["a"][:3], "b": arrays["a"]})))


def test_an_operator_that_a_runtime_lacks_is_a_problem_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    assert try_device("cpu", "fp16").problem is None
    unknown = one_operator("Nonsense", {"a": np.ones((8, 8), np.float32)})
    monkeypatch.setattr("tfbatch.commands.doctor.one_operator", lambda *_: unknown)
    assert "cannot load" in str(try_device("cpu", "fp32").problem)


def test_the_attention_that_shows_its_kernel_on_a_gpu_computes() -> None:
    made = compute_attention("cpu")
    np.testing.assert_allclose(made, np.full((2, 16, 64), 0.64), atol=1e-2)


@no_gpu
def test_no_kernel_is_made_up_where_there_is_no_gpu() -> None:
    assert attention_kernel() is None


def test_work_that_is_left_to_the_processor_is_named_and_shapes_are_not(text_bundle: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(text_bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
    left = work_on_processor(session)
    assert {"MultiHeadAttention", "BiasGelu", "LayerNormalization", "MatMul"} <= set(left)
    assert not {"Shape", "Slice", "Gather"} & (set(left) | WORK)


@pytest.mark.parametrize(("content", "least"), [("max", 1 << 25), ("1048576", 1 << 20)])
def test_a_cgroups_limit_bounds_the_memory(content: str, least: int, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(content)
    found = available_memory(tmp_path)
    assert found is not None
    assert found >= least
    assert (found == 1 << 20) is (content != "max")


@pytest.mark.gpu
def test_the_doctor_names_the_gpu_and_its_attention_kernel() -> None:
    if problem := cuda_problem(0):
        pytest.skip(problem)
    result = run_tfbatch("doctor").result
    assert {"cuda fp32", "cuda fp16"} <= set(result["works"])
    assert result["attention_kernel"]
    assert result["gpus"][0]["memory"] > 1 << 30
