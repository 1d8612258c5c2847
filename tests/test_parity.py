"""What is near enough to PyTorch, and what is not."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, run_tfbatch
from tfbatch.errors import ExportNotVerified
from tfbatch.host.machine import is_overflowing, processor_flags
from tfbatch_export.distance import compare, spread_of
from tfbatch_export.parity import REAL, check_parity, mean, ways

LOGITS = np.array([[1.0, -1.0], [-0.5, 0.5], [2.0, 0.0]], np.float32)


def record(precision: str = "fp32", *, device: str = "cpu", is_real: bool = True, **figures: Any) -> dict[str, Any]:
    near = {"max_abs_difference": 1e-6, "cosine": 1.0, "label_agreement": 1.0}
    facts = {"device": device, "precision": precision, "arithmetic": "f32", "batch": "b", "rows": 10}
    return {**facts, "is_real": is_real, **near, **figures}


def test_figures_of_a_comparison_are_by_row() -> None:
    found = LOGITS.copy()
    found[1] = [0.5, -0.5]
    figures = compare(found, LOGITS, labels=True)
    assert figures == {
        "max_abs_difference": 1.0,
        "cosine": pytest.approx(1 / 3),
        "label_agreement": pytest.approx(2 / 3),
    }
    assert "label_agreement" not in compare(found, LOGITS, labels=False)
    zeros = np.zeros((2, 3, 4), np.float32)
    assert compare(zeros, zeros, labels=False)["cosine"] == 1


def test_either_label_of_a_tie_is_right() -> None:
    reference = np.array([[0.1, 0.10001]], np.float32)
    assert compare(reference[:, ::-1].copy(), reference, labels=True)["label_agreement"] == 1


def test_of_lone_numbers_the_error_counts_as_a_share_of_what_they_are_spread_by() -> None:
    """A cosine of (x, 1) and (y, 1) was 0.99 and more of any two small numbers."""
    reference = np.linspace(4.9, 5.1, 100, dtype=np.float32)[:, None]
    spread = spread_of([reference[:30], reference[30:]], "int8")
    least = REAL["int8"].cosine
    for found, is_near in (
        (reference, True),
        (reference + np.float32(0.1 * spread), True),
        (reference + np.float32(0.2 * spread), False),
        (reference * np.float32(1.05), False),
        (reference[::-1].copy(), False),
        (np.full_like(reference, 5), False),
    ):
        figures = compare(found, reference, labels=True, spread=spread)
        assert (figures["cosine"] >= least) is is_near
        assert "label_agreement" not in figures
    assert spread_of([reference[:1]], "int8") == pytest.approx(4.9)
    assert spread_of([LOGITS], "fp16") == 1


def test_of_next_to_equal_numbers_the_rounding_of_fp16_is_no_error() -> None:
    reference = np.full((32, 1), 7.3, np.float32) + np.linspace(0, 1e-4, 32, dtype=np.float32)[:, None]
    rounded = reference.astype(np.float16).astype(np.float32)
    figures = compare(rounded, reference, labels=True, spread=spread_of([reference], "fp16"))
    assert figures["cosine"] >= REAL["fp16"].cosine
    assert spread_of([reference], "int8") == pytest.approx(reference.std(), rel=1e-3)


def test_labels_that_do_not_exclude_each_other_are_compared_one_by_one() -> None:
    reference = np.array([[5.0, 1.0, -1.0], [-1.0, -2.0, -3.0], [3.0, -1.0, -1e-5]], np.float32)
    for changed, share in (((0, 1, -1.0), 2.5 / 3), ((1, 0, 1.0), 2 / 3), ((0, 0, 0.5), 1), ((2, 2, 1e-5), 1)):
        found = reference.copy()
        found[changed[:2]] = changed[2]
        figures = compare(found, reference, labels=True, independent=True)
        assert figures["label_agreement"] == pytest.approx(share)


def test_openvinos_int8_is_not_judged_where_its_sums_would_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, devices in (({"sse2"}, ["cpu"]), ({"sse2", "avx_vnni"}, ["cpu", "openvino"])):
        monkeypatch.setattr("tfbatch_export.parity.processor_flags", lambda flags=flags: flags)
        assert [device.name for device, _ in ways("int8")] == devices


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_what_is_no_number_is_refused_in_every_precision(bad: float, precision: str) -> None:
    found = LOGITS.copy()
    found[0, 0] = bad
    rest = [record(precision) for _ in range(100)]
    with pytest.raises(ExportNotVerified):
        check_parity([*rest, record(precision, **compare(found, LOGITS, labels=True))], precision)


def test_fp32_is_held_to_every_row_made_up_or_real() -> None:
    assert check_parity([record(is_real=False)], "fp32") == {"cpu fp32 f32": True}
    for figures in ({"max_abs_difference": 2e-4}, {"label_agreement": 0.9}):
        with pytest.raises(ExportNotVerified, match="not the checkpoint"):
            check_parity([record(is_real=False), record(**figures)], "fp32")


def test_reduced_precision_is_held_to_real_rows() -> None:
    made_up = record("int8", is_real=False, cosine=0.5, label_agreement=0.5)
    assert check_parity([made_up, record("int8")], "int8") == {"cpu int8 f32": True}
    assert check_parity([made_up], "int8") == {}  # nothing told
    for figures in ({"cosine": 0.9}, {"label_agreement": 0.9}):
        with pytest.raises(ExportNotVerified, match="too far"):
            check_parity([record("int8", **figures)], "int8")


def test_another_runtimes_shortfall_is_recorded_and_not_fatal() -> None:
    found = check_parity([record(), record(device="openvino", max_abs_difference=1.0)], "fp32")
    assert found == {"cpu fp32 f32": True, "openvino fp32 f32": False}


def test_a_mean_weighs_rows() -> None:
    records = [record(cosine=1.0), record(cosine=0.0) | {"rows": 30}]
    assert mean(records, "cosine") == 0.25
    assert mean(records, "nothing") is None


def test_8_bit_weights_need_real_rows(text_checkpoint: Path, tmp_path: Path) -> None:
    done = run_tfbatch("export", text_checkpoint, "-o", tmp_path / "bundle", "--int8")
    assert (done.code, "--samples" in done.err) == (2, True)


@pytest.mark.parametrize("name", ["sentiment", "fashion"])
def test_a_bundle_of_several_precisions_is_verified_again(name: str) -> None:
    done = run_tfbatch("verify", ROOT / "models" / name, cwd=ROOT)
    assert done.code == 0, done.err
    graphs = done.result["graphs"]
    assert set(graphs) == {"fp32", "int8"}
    assert graphs["int8"]["proofs"]["cpu int8 f32"] is True
    is_judged = any(way.startswith("openvino int8") for way in graphs["int8"]["proofs"])
    assert is_judged is not is_overflowing(processor_flags())


def test_a_bundle_of_before_there_were_several_ways_is_shown(text_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(text_bundle, tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "tfbatch.json").read_text())
    manifest["source"]["name"] = str(tmp_path / "gone")
    graph = manifest["graphs"]["fp32"]
    del graph["proofs"]
    known = ("batch", "max_abs_difference", "label_agreement")
    graph["parity"] = [{name: each[name] for name in known} for each in graph["parity"] if each["device"] == "cpu"]
    (tmp_path / "bundle" / "tfbatch.json").write_text(json.dumps(manifest))
    done = run_tfbatch("verify", tmp_path / "bundle")
    assert done.code == 0, done.err
    assert done.result["graphs"]["fp32"]["max_abs_difference"] < 1e-4
