"""Embeddings of pictures are the class token's state or the mean of the patches', as the export was told."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import read_output, run_tfbatch
from real_rows import real_pictures
from tfbatch.bundle import load_bundle
from tfbatch.errors import UsageError
from tfbatch_export.checkpoint import find_checkpoint, infer_task
from tfbatch_export.config import ExportConfig
from tfbatch_export.export import export
from tfbatch_export.families import load_family
from tfbatch_export.verify import verify
from transformers import AutoConfig
from vision import make_checkpoint, pool, states_of

TASK = "image-feature-extraction"
CELLS = [*real_pictures()[:4], None, b"no picture"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint("vit", TASK, tmp_path_factory.mktemp("checkpoints") / "vit")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Path:
    """Pooled by the mean and to length one, which is not ViT's default."""
    output = checkpoint.parent / "bundle"
    return export(ExportConfig(model=str(checkpoint), output=output, pooling="mean", normalise=True)).path


def run(bundle: Path, cells: list[bytes | None], folder: Path, *words: object) -> pa.Table:
    """The output for a column of pictures."""
    pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), folder / "in.parquet")
    done = run_tfbatch("run", folder / "in.parquet", "-m", bundle, "-o", folder / "out", *words)
    assert done.code == 0, done.err
    return read_output(folder / "out")


def test_pictures_are_pooled_and_normalised_as_the_export_was_told(
    checkpoint: Path, bundle: Path, tmp_path: Path
) -> None:
    settings = load_bundle(bundle).manifest.settings
    assert (settings["pooling"], settings["normalised"], settings["embedding_width"]) == ("mean", True, 32)
    rows = run(bundle, CELLS, tmp_path, "--exact-decoding").to_pylist()
    for row, states in zip(rows, states_of("vit", checkpoint, [cell for cell in CELLS[:4] if cell]), strict=False):
        expected = torch.nn.functional.normalize(pool("vit", states, "mean", 1), dim=0)
        assert row["embedding"] == pytest.approx(expected.tolist(), abs=1e-4)
        assert np.linalg.norm(row["embedding"]) == pytest.approx(1, abs=1e-5)
    assert [row["error"] and row["error"].split(":")[0] for row in rows] == [None] * 4 + ["null", "undecodable"]
    assert [row["embedding"] is None for row in rows] == [False] * 4 + [True] * 2


def test_no_rows_are_an_output_too(bundle: Path, tmp_path: Path) -> None:
    assert len(run(bundle, [], tmp_path)) == 0


@pytest.mark.families
def test_verify_pools_as_the_bundle_does(bundle: Path) -> None:
    assert verify(bundle, None)[1]


def test_the_task_is_that_of_a_model_without_a_head(checkpoint: Path) -> None:
    assert infer_task(find_checkpoint(str(checkpoint), None)) == TASK


@pytest.mark.parametrize(
    ("name", "more", "mode"),
    [
        ("vit", {}, "cls"),
        ("deit", {}, "cls"),
        ("dinov2", {}, "cls"),
        ("dinov3_vit", {}, "cls"),
        ("swin", {}, "mean"),
        ("beit", {}, "mean"),
        ("beit", {"use_mean_pooling": False}, "cls"),
    ],
)
@pytest.mark.families
def test_by_itself_a_family_pools_as_its_paper_does(name: str, more: dict[str, Any], mode: str) -> None:
    family: Any = load_family(name, TASK)
    assert family.mode_of(AutoConfig.for_model(name, **more)) == mode


@pytest.mark.families
def test_a_head_that_is_not_used_may_be_there(tmp_path: Path) -> None:
    """A classifier's body is exported as it is, from weights that have no pooler."""
    checkpoint = make_checkpoint("vit", "image-classification", tmp_path / "vit")
    output = tmp_path / "bundle"
    made = export(ExportConfig(model=str(checkpoint), output=output, task=TASK))
    assert made.manifest.settings["pooling"] == "cls"


def test_a_way_of_pooling_that_models_do_not_have_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint("swin", TASK, tmp_path / "swin")
    with pytest.raises(UsageError, match="--pooling cls: these models can be pooled by mean"):
        export(ExportConfig(model=str(checkpoint), output=tmp_path / "bundle", pooling="cls"))


def test_pooling_is_not_for_texts_or_labels(text_checkpoint: Path, image_checkpoint: Path, tmp_path: Path) -> None:
    for checkpoint, task in ((text_checkpoint, "text-classification"), (image_checkpoint, "image-classification")):
        with pytest.raises(UsageError, match=f"are not for {task} of "):
            export(ExportConfig(model=str(checkpoint), output=tmp_path / "bundle", normalise=True))


@pytest.mark.families
@pytest.mark.parametrize("is_normalised", [True, False])
@pytest.mark.parametrize("mode", ["cls", "mean"])
@pytest.mark.parametrize("name", ["beit", "deit", "dinov2_with_registers", "dinov3_vit"])
def test_every_family_is_pooled_either_way(name: str, mode: str, is_normalised: bool, tmp_path: Path) -> None:
    leading = {"beit": 1, "deit": 2}.get(name, 5)
    checkpoint = make_checkpoint(name, TASK, tmp_path / name)
    bundle = export(
        ExportConfig(model=str(checkpoint), output=tmp_path / "bundle", pooling=mode, normalise=is_normalised)
    ).path
    pictures = [cell for cell in CELLS[:4] if cell]
    rows = run(bundle, list(pictures), tmp_path, "--exact-decoding").to_pylist()
    for row, states in zip(rows, states_of(name, checkpoint, pictures), strict=True):
        expected = pool(name, states, mode, leading)
        if name == "beit" and mode == "mean":
            expected = beit_norm(checkpoint)(expected)
        expected = torch.nn.functional.normalize(expected, dim=0) if is_normalised else expected
        assert row["embedding"] == pytest.approx(expected.tolist(), abs=1e-4)


def beit_norm(checkpoint: Path) -> Any:
    """The normalisation of the mean, which the Hub's pooler has."""
    from transformers import AutoModel

    return torch.inference_mode()(AutoModel.from_pretrained(checkpoint).eval().pooler.layernorm.forward)


@pytest.mark.families
def test_the_command_line_takes_the_choice(checkpoint: Path, tmp_path: Path) -> None:
    done = run_tfbatch("export", checkpoint, "-o", tmp_path / "bundle", "--pooling", "cls", "--normalise")
    assert done.code == 0, done.err
    settings = load_bundle(tmp_path / "bundle").manifest.settings
    assert (settings["pooling"], settings["normalised"]) == ("cls", True)
