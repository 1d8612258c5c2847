import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import change_json, copy_bundle, lay_out
from conftest import run_tfbatch
from tfbatch.batching.cells import KINDS
from tfbatch.tasks import load_task, task_names

WORDS = ["good film", "bad", "", None]


def test_a_bundle_says_what_it_is_and_what_was_proved(text_bundle: Path) -> None:
    done = run_tfbatch("inspect", text_bundle)
    assert done.code == 0, done.err
    found = done.result
    manifest = json.loads((text_bundle / "tfbatch.json").read_text())
    for name in ("task", "family", "labels", "source", "inputs", "settings", "versions"):
        assert found[name] == manifest[name]
    assert (found["kind"], found["verified"]) == ("bundle", True)
    graph, recorded = found["graphs"]["fp32"], manifest["graphs"]["fp32"]
    assert graph["bytes"] == (text_bundle / "model.onnx").stat().st_size
    assert graph["operators"]["MultiHeadAttention"] == {"found": 2, "expected": 2}
    own = [record for record in recorded["parity"] if record["device"] == "cpu"]
    way = graph["ways"]["cpu fp32 f32"]
    assert way["max_abs_difference"] == max(record["max_abs_difference"] for record in own)
    assert (way["batches"], way["label_agreement"], way["proved"]) == (len(own), 1, True)
    for words in (
        "verified",
        "MultiHeadAttention 2 of 2",
        "no Attention",
        "no Softmax",
        "negative, neutral, positive",
        "max_length 64",
        "torch 2.",
    ):
        assert words in done.err


def test_what_another_tool_made_is_called_unverified(image_bundle: Path, tmp_path: Path) -> None:
    done = run_tfbatch("inspect", lay_out(image_bundle, tmp_path / "foreign"))
    assert (done.code, done.result["verified"], done.result["labels"]) == (0, False, ["cat", "dog"])
    assert "UNVERIFIED" in done.err


def test_a_table_says_which_column_fits_which_task_and_how_large_its_rows_are(
    text_bundle: Path, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    pictures = [picture((40, 30)), picture((60, 50), form="JPEG"), picture((20, 10)), b"none"]
    masks = pa.array([[True, False]] * 4, pa.list_(pa.bool_()))
    table = pa.table({"id": range(4), "text": WORDS, "picture": pictures, "mask": masks})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    done = run_tfbatch("inspect", tmp_path / "in.parquet", "-m", text_bundle)
    assert done.code == 0, done.err
    found = done.result
    assert [found[name] for name in ("kind", "files", "rows", "row_groups")] == ["table", 1, 4, 2]
    columns = {column["name"]: column for column in found["columns"]}
    schema = pq.read_schema(tmp_path / "in.parquet")
    assert {name: column["type"] for name, column in columns.items()} == {
        field.name: str(field.type) for field in schema
    }
    for name, column in columns.items():
        kind = table.schema.field(name).type
        assert column["tasks"] == [task for task in task_names() if KINDS[load_task(task).kind](kind)]
    assert columns["text"]["sample"] == {
        "rows": 4, "null_share": 0.25, "unreadable": 0, "characters": {"median": 3, "max": 9},
        "tokens": {"median": 3, "max": 4, "limit": 64, "share_at_limit": 0.0},
    }  # fmt: skip
    assert columns["picture"]["sample"] == {
        "rows": 4, "null_share": 0.0, "unreadable": 1,
        "width": {"median": 40, "max": 60}, "height": {"median": 30, "max": 50},
    }  # fmt: skip
    assert (columns["id"]["sample"], columns["mask"]["sample"], columns["mask"]["kinds"]) == (None, None, ["mask"])
    assert "40 x 30 pixels in the median, 60 x 50 at most" in done.err
    assert "fits --mask-column" in done.err
    assert "good film" not in done.err + done.out


def test_only_the_first_rows_are_looked_at_however_many_files_there_are(tmp_path: Path) -> None:
    for name in "ab":
        pq.write_table(pa.table({"text": ["x" * 10] * 300 + ["x" * 1000]}), tmp_path / f"{name}.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "0.parquet")
    for words in ([tmp_path], [tmp_path / "*.parquet"], [tmp_path / f"{name}.parquet" for name in "0ab"]):
        found = run_tfbatch("inspect", *words).result
        assert (found["files"], found["rows"], found["row_groups"]) == (3, 602, 3)
        sample = found["columns"][0]["sample"]
        assert (sample["rows"], sample["characters"]) == (256, {"median": 10, "max": 10})


def test_texts_that_are_cut_and_texts_that_are_no_text_are_counted(text_bundle: Path, tmp_path: Path) -> None:
    texts = pa.array([b"good " * 100, b"bad", b"\xff\xfe", b"fine"]).cast(pa.binary())
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), 4, texts.buffers())})
    pq.write_table(table, tmp_path / "in.parquet")
    sample = run_tfbatch("inspect", tmp_path / "in.parquet", "-m", text_bundle).result["columns"][0]["sample"]
    assert (sample["unreadable"], sample["characters"]["max"]) == (1, 500)
    assert (sample["tokens"]["max"], sample["tokens"]["share_at_limit"]) == (64, 0.3333)


def test_a_table_without_rows_or_fitting_columns_has_nothing_to_sample(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    sample = run_tfbatch("inspect", tmp_path / "empty.parquet").result["columns"][0]["sample"]
    assert sample == {"rows": 0, "null_share": 0.0, "unreadable": 0, "characters": {"median": None, "max": None}}
    pq.write_table(pa.table({"id": [1]}), tmp_path / "plain.parquet")
    done = run_tfbatch("inspect", tmp_path / "plain.parquet")
    assert (done.code, done.result["columns"][0]["tasks"]) == (0, [])


def spoil_parity(content: dict[str, Any]) -> None:
    del content["graphs"]["fp32"]["parity"][0]["max_abs_difference"]


def spoil_versions(content: dict[str, Any]) -> None:
    content["versions"] = ["torch"]


@pytest.mark.parametrize("spoil", [spoil_parity, spoil_versions])
def test_a_manifest_that_cannot_be_understood_is_one_sentence(
    spoil: Callable[[dict[str, Any]], None], text_bundle: Path, tmp_path: Path
) -> None:
    copy = copy_bundle(text_bundle, tmp_path / "copy")
    content = json.loads((copy / "tfbatch.json").read_text())
    spoil(content)
    (copy / "tfbatch.json").write_text(json.dumps(content))
    done = run_tfbatch("inspect", copy)
    assert (done.code, done.out) == (78, "")
    assert done.err.startswith(f"tfbatch: bundle {copy}: what the manifest says of it cannot be understood")
    assert len(done.err.splitlines()) == 1


def test_broken_input_is_one_sentence_with_its_exit_code(
    text_bundle: Path, image_bundle: Path, reviews: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(reviews.read_bytes()[:-20])
    torn = tmp_path / "torn.parquet"
    content = bytearray(reviews.read_bytes())
    content[4:3000] = bytes(2996)
    torn.write_bytes(content)
    (tmp_path / "empty").mkdir()
    foreign = lay_out(text_bundle, tmp_path / "foreign")
    change_json(foreign / "config.json", architectures=["BertForMaskedLM"])
    changed = copy_bundle(image_bundle, tmp_path / "changed")
    change_json(changed / "config.json", image_size=64)
    cases = [
        (66, [tmp_path / "nothing"], "does not exist"),
        (66, [tmp_path / "empty"], "no"),
        (65, [broken], "is not a readable Parquet file"),
        (65, [torn], "cannot be read"),
        (78, [foreign], "BertForMaskedLM"),
        (78, [changed], "config.json is not the file that was verified"),
        (78, [reviews, "-m", tmp_path / "nothing"], "is not a bundle"),
        (2, [text_bundle, "-m", text_bundle], "is a bundle itself"),
    ]
    for code, words, reason in cases:
        done = run_tfbatch("inspect", *words)
        assert (done.code, done.out) == (code, ""), (words, done)
        assert reason in done.err
        assert len(done.err.splitlines()) == 1, done.err
