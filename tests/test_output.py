"""What is recorded as finished, held against what is there."""

import json
from pathlib import Path

import pytest
from conftest import part_hashes, read_output, run_tfbatch
from test_generated import tree, write_pictures
from test_masked_im import PictureModel
from tfbatch.bundle import sha256


def flip_a_bit(path: Path) -> None:
    """As a disk might, and without a trace in size or name."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_verify_makes_a_part_anew_that_changed_since_it_was_recorded(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--rows-per-part", 300]
    assert run_tfbatch(*words).code == 0
    whole = part_hashes(tmp_path / "out")
    assert run_tfbatch(*words, "--verify").result["status"] == "already done"
    flip_a_bit(sorted((tmp_path / "out").glob("part-*"))[1])
    assert run_tfbatch(*words).result["status"] == "already done"
    assert run_tfbatch(*words, "--verify").result["status"] == "done"
    assert part_hashes(tmp_path / "out") == whole


def test_verify_looks_at_pictures_in_files_too(picture_model: PictureModel, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "in.parquet", 20)
    words = ["run", source, "-m", picture_model("vit")[1], "-o", tmp_path / "out", "--images", "files"]
    assert run_tfbatch(*words).code == 0
    whole = tree(tmp_path / "out")
    picture = next((tmp_path / "out" / "images").rglob("*.png"))
    flip_a_bit(picture)
    assert run_tfbatch(*words, "--verify").result["status"] == "done"
    assert tree(tmp_path / "out") == whole
    picture.unlink()
    assert run_tfbatch(*words).result["status"] == "done", "a missing one is seen without it"
    assert tree(tmp_path / "out") == whole


def test_verify_makes_one_file_anew_that_changed_since(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    words = ["run", reviews, "-m", text_bundle, "-o", target, "--rows-per-part", 300]
    assert run_tfbatch(*words).code == 0
    whole = sha256(target)
    assert run_tfbatch(*words, "--verify").result["status"] == "already done"
    flip_a_bit(target)
    assert run_tfbatch(*words, "--verify").result["status"] == "done"
    assert sha256(target) == whole


@pytest.mark.parametrize("change", [{"rows": 299}, {"part": "part-00000-0-1.parquet"}, {"errors": None}, {"bytes": 1}])
def test_a_record_that_does_not_fit_the_plan_counts_for_nothing(
    change: dict[str, object], reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--rows-per-part", 300]
    assert run_tfbatch(*words).code == 0
    whole = part_hashes(tmp_path / "out")
    record = sorted((tmp_path / "out" / "_tfbatch" / "done").iterdir())[0]
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    assert run_tfbatch(*words).result["status"] == "done"
    assert part_hashes(tmp_path / "out") == whole
    assert read_output(tmp_path / "out")["id"].to_pylist() == list(range(1000))
