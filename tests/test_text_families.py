"""Every text family with every task it has a head for: fused as declared, equal to PyTorch, and by
`tfbatch run` what the Hub's own pipeline gives."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx_ir
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, read_output, run_tfbatch
from text_checkpoints import LONGEST, SIZES, TOKENIZERS, make_config, make_text_checkpoint, real_texts
from text_comparisons import COMPARISONS
from tfbatch.bundle import load_bundle
from tfbatch.errors import ExportNotVerified
from tfbatch_export import graphs as graphs_module
from tfbatch_export.checkpoint import auto_class
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export
from tfbatch_export.families import family_names, load_family, tasks_of
from tfbatch_export.families._text import TextFamily
from tfbatch_export.graphs import build_graph
from tfbatch_export.heads import head_names
from tfbatch_export.precision import write_fp32
from transformers import AutoTokenizer

TEXT_FAMILIES = [name for name in family_names() if isinstance(next(iter(tasks_of(name).values())), TextFamily)]
ORDINARY = {("roberta", "text-classification")}
PAIRS = [
    pytest.param(name, task, marks=() if (name, task) in ORDINARY else pytest.mark.families)
    for name in TEXT_FAMILIES
    for task in tasks_of(name)
]


@pytest.mark.parametrize(("name", "task"), PAIRS)
def test_a_family_does_a_task_as_the_hub_does(name: str, task: str, tmp_path: Path, many_ties: None) -> None:
    checkpoint = make_text_checkpoint(name, task, tmp_path / "checkpoint")
    comparison = COMPARISONS[task]
    table = comparison.make(real_texts(), AutoTokenizer.from_pretrained(checkpoint))
    pq.write_table(table, tmp_path / "in.parquet")
    asked = ExportConfig(
        model=str(checkpoint), output=tmp_path / "bundle", task=task, fp16=True, int8=True,
        samples=tmp_path / "in.parquet", **comparison.samples,
    )  # fmt: skip
    bundle = export(asked)
    graph = bundle.manifest.graphs["fp32"]
    assert graph.fused.get("Attention", 0) + graph.fused.get("MultiHeadAttention", 0) == 3
    exact = [record for record in graph.parity if record["device"] == "cpu"]
    assert max(record["max_abs_difference"] for record in exact) <= 1e-4
    assert {f"7 x {LONGEST}", f"7 x {LONGEST}, padded"} <= {record["batch"] for record in exact}
    for precision in ("fp16", "int8"):
        assert bundle.manifest.graphs[precision].proofs[f"cpu {precision} f32"] is True
    words = ["-m", bundle.path, "-o", tmp_path / "out", *comparison.words]
    done = run_tfbatch("run", tmp_path / "in.parquet", *words)
    assert done.code == 0, done.err
    found = read_output(tmp_path / "out")
    assert found.select(table.column_names).equals(table)
    assert found["error"].null_count == len(table)
    comparison.check(found, checkpoint)


def test_every_text_family_has_a_checkpoint_and_every_head_a_comparison() -> None:
    assert set(TEXT_FAMILIES) == set(TOKENIZERS) == set(SIZES)
    assert set(head_names()) == set(COMPARISONS)


def shut_nothing_out(graph: onnx_ir.Model) -> None:
    """Take the bias away from every attention that reaches near tokens alone."""
    near = [node for node in graph.graph if node.op_type == "MultiHeadAttention" and len(node.inputs) > 5]
    near = [node for node in near if node.inputs[5] is not None]
    assert len(near) == 2
    for node in near:
        node.replace_input_with(5, None)


def forget_padding(graph: onnx_ir.Model) -> None:
    for node in graph.graph:
        if node.op_type == "MultiHeadAttention":
            node.replace_input_with(4, None)


@pytest.mark.parametrize(("tamper", "batch"), [(shut_nothing_out, r"\d x 128"), (forget_padding, "padded")])
@pytest.mark.families
def test_a_modernbert_that_sees_too_much_is_refused(
    tamper: Callable[[onnx_ir.Model], None], batch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = graphs_module.fuse

    def tampered(graph: onnx_ir.Model) -> onnx_ir.Model:
        fused = whole(graph)
        tamper(fused)
        return fused

    monkeypatch.setattr(graphs_module, "fuse", tampered)
    checkpoint = make_text_checkpoint("modernbert", "text-classification", tmp_path / "checkpoint")
    with pytest.raises(ExportNotVerified, match=f"on a batch of .*{batch}.* differs from PyTorch by"):
        export(ExportConfig(model=str(checkpoint), output=tmp_path / "bundle"))


@pytest.mark.families
def test_a_modernbert_classifies_by_the_mean_of_its_real_tokens_where_it_is_told_to(tmp_path: Path) -> None:
    folder = make_text_checkpoint("modernbert", "text-classification", tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text()) | {"classifier_pooling": "mean"}
    (folder / "config.json").write_text(json.dumps(config))
    graph = export(ExportConfig(model=str(folder), output=tmp_path / "bundle")).manifest.graphs["fp32"]
    assert graph.fused["MultiHeadAttention"] == 3


@pytest.mark.families
def test_layers_that_share_their_weights_share_them_in_the_file_too(tmp_path: Path) -> None:
    family = load_family("albert", "text-classification")
    config = make_config("albert", TOKENIZERS["albert"]())
    model = auto_class("text-classification", family).from_config(config).eval()
    graph, _ = build_graph(family, model)
    onnx_ir.save(graph, tmp_path / "fused.onnx")
    write_fp32(tmp_path / "fused.onnx", tmp_path / "model.onnx")
    weights = sum(weight.nbytes for weight in model.parameters())
    assert (tmp_path / "model.onnx").stat().st_size < weights + 30_000


@pytest.mark.families
def test_of_robertas_positions_those_up_to_the_padding_are_not_to_be_had(tmp_path: Path) -> None:
    folder = make_text_checkpoint("roberta", "feature-extraction", tmp_path / "checkpoint")
    config = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 10**30}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    bundle = export(ExportConfig(model=str(folder), output=tmp_path / "bundle"))
    assert load_bundle(bundle.path).setting("max_length") == 512


FAMILY = """
from tfbatch_export.families._text import text_tasks
from tfbatch_export.families.roberta import Roberta


class Same(Roberta):
    def expected(self, config):
        return super().expected(config) | {changed}


TASKS = text_tasks(Same())
"""


def test_a_file_in_the_folder_of_families_is_all_that_a_family_takes(tmp_path: Path) -> None:
    """The contract's test finds two more files: it passes one and fails one that lets a Softmax be left."""
    shutil.copytree(ROOT / "export" / "tfbatch_export", tmp_path / "tfbatch_export")
    folder = tmp_path / "tfbatch_export" / "families"
    (folder / "data2vec_text.py").write_text(FAMILY.replace("{changed}", "{}"))
    (folder / "xlm_roberta_xl.py").write_text(FAMILY.replace("{changed}", '{"Softmax": 1}'))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(ROOT / "tests" / "test_export.py"), "-p", "no:cacheprovider",
         "-o", f"pythonpath={tmp_path} {ROOT / 'pipeline'}",
         "-k", "keeps_the_contract and (data2vec_text or xlm_roberta_xl)"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    heads = len(head_names())
    assert f"{heads} failed, {heads} passed" in done.stdout, done.stdout + done.stderr
    assert len(re.findall(r"FAILED .*\[xlm_roberta_xl-", done.stdout)) == heads
