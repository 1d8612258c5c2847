"""The run command as a scheduler meets it: rows, messages, exit codes, crashes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, WORDS, part_hashes, read_output, run_tfbatch, tfbatch_env, write_reviews
from tfbatch.config import RunConfig
from tfbatch.job import make_job
from tfbatch.reporting.report import Report
from tfbatch.reporting.tally import Tally


def test_each_row_comes_out_once_and_in_order_with_its_own_columns(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--rows-per-part", 270)
    assert done.code == 0, done.err
    assert done.result["status"] == "done"
    assert (done.result["rows"], done.result["errors"], done.result["parts"]) == (1000, 0, 4)
    table, given = read_output(tmp_path / "out"), pq.read_table(reviews)
    assert table.select(given.column_names).equals(given)
    assert table.column_names == ["id", "text", "weight", "predicted_label", "predicted_score", "error"]
    assert table["error"].null_count == 1000
    assert set(table["predicted_label"].to_pylist()) <= {"negative", "neutral", "positive"}


def test_the_last_line_holds_what_a_scheduler_reads(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "out")
    names = (
        "status rows errors parts output seconds rows_per_second bundle task device precision "
        "peak_memory_bytes padding_ratio"
    )
    assert set(names.split()) <= set(done.result)
    assert 1 <= done.result["padding_ratio"] < 1.1
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_text())["rows"] == 1000


def test_bad_rows_have_nulls_and_a_reason_and_change_no_other_row(text_bundle: Path, tmp_path: Path) -> None:
    good = ["good film", "", "bad plot 🎬", "dull"]
    bad = pa.array([b"good film", None, b"", "bad plot 🎬".encode(), b"\xff\xfe", b"dull"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), len(bad), bad.buffers())
    pq.write_table(pa.table({"text": pa.array(good)}), tmp_path / "good.parquet")
    pq.write_table(pa.table({"text": text}), tmp_path / "mixed.parquet")
    for name in ("good", "mixed"):
        done = run_tfbatch("run", tmp_path / f"{name}.parquet", "-m", text_bundle, "-o", tmp_path / name)
        assert done.code == 0, done.err
    mixed = read_output(tmp_path / "mixed").select(["predicted_label", "predicted_score", "error"])
    errors = mixed["error"].to_pylist()
    assert [error and error.split(":")[0] for error in errors] == [None, "null", None, None, "invalid_utf8", None]
    assert mixed.filter(pc.is_valid(mixed["error"]))["predicted_label"].null_count == 2
    clean = mixed.filter(pc.is_null(mixed["error"]))
    expected = read_output(tmp_path / "good")
    assert clean["predicted_label"].to_pylist() == expected["predicted_label"].to_pylist()
    np.testing.assert_allclose(clean["predicted_score"], expected["predicted_score"], atol=1e-6)


def test_too_many_bad_rows_fail_the_job(text_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good"] * 97 + [None] * 3}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out", "--max-errors"]
    strict = run_tfbatch(*words, "2%")
    assert strict.code == 3
    assert "3 rows have errors" in strict.err
    assert f"row 97 (from 0) of {tmp_path / 'in.parquet'}, null: the cell is null" in strict.err
    assert (strict.result["status"], strict.result["exit_code"], strict.result["errors"]) == ("failed", 3, 3)
    assert run_tfbatch(*words, "2%").code == 3  # tried again, it fails again
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    lenient = run_tfbatch(*words, "3%")
    assert (lenient.code, "3 of 100 rows have errors; the error column of" in lenient.err) == (0, True)
    assert run_tfbatch(*words, 2).code == 3


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_every_kind_of_string_column_gives_the_same_labels(
    kind: str, reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    table = pq.read_table(reviews)
    types = {
        "string": pa.string(), "large_string": pa.large_string(), "string_view": pa.string_view(),
        "dictionary": pa.dictionary(pa.int32(), pa.string()),
    }  # fmt: skip
    text = table["text"].cast(types[kind])
    pq.write_table(table.set_column(1, "text", text), tmp_path / "typed.parquet")
    for source, out in ((reviews, "plain"), (tmp_path / "typed.parquet", "typed")):
        done = run_tfbatch("run", source, "-m", text_bundle, "-o", tmp_path / out)
        assert done.code == 0, done.err
    plain, typed = read_output(tmp_path / "plain"), read_output(tmp_path / "typed")
    assert typed["predicted_score"].equals(plain["predicted_score"])
    assert typed["text"].cast(pa.string()).equals(plain["text"])


def test_scores_of_all_labels_or_the_best_come_best_first(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "all", "--all-scores", "--prefix", "m_")
    run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "two", "--top-k", 2, "--keep-columns", "none")
    everything, two = read_output(tmp_path / "all"), read_output(tmp_path / "two")
    assert two.column_names == ["predicted_label", "predicted_score", "predicted_scores", "error"]
    for row, best in zip(everything.to_pylist(), two.to_pylist(), strict=True):
        scores = [entry["score"] for entry in row["m_predicted_scores"]]
        assert scores == sorted(scores, reverse=True)
        assert sum(scores) == pytest.approx(1, abs=1e-5)
        assert row["m_predicted_scores"][0] == {"label": row["m_predicted_label"], "score": row["m_predicted_score"]}
        assert best["predicted_scores"] == row["m_predicted_scores"][:2]


def test_results_depend_on_neither_budget_nor_threads(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    tables = []
    for index, words in enumerate(
        (["--threads", 1], ["--threads", 2], ["--batch-tokens", 64], ["--batch-tokens", 9999])
    ):
        done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / str(index), *words)
        assert done.code == 0, done.err
        tables.append(read_output(tmp_path / str(index)))
    assert tables[0].equals(tables[1])
    for table in tables[2:]:
        assert table["predicted_label"].equals(tables[0]["predicted_label"])
        np.testing.assert_allclose(table["predicted_score"], tables[0]["predicted_score"], atol=1e-6)


def test_hive_folders_are_kept_and_zero_rows_are_a_file_too(text_bundle: Path, tmp_path: Path) -> None:
    for day, rows in (("2026-01-01", 30), ("2026-01-02", 0), ("2026-01-03", 20)):
        folder = tmp_path / "in" / f"day={day}"
        folder.mkdir(parents=True)
        write_reviews(folder / "rows.parquet", rows)
    done = run_tfbatch("run", tmp_path / "in", "-m", text_bundle, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert (done.result["rows"], done.result["parts"]) == (50, 3)
    found = {path.parent.name: pq.read_metadata(path).num_rows for path in (tmp_path / "out").rglob("part-*.parquet")}
    assert found == {"day=2026-01-01": 30, "day=2026-01-02": 0, "day=2026-01-03": 20}


def test_one_file_in_can_be_one_file_out(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    words = ["run", reviews, "-m", text_bundle, "-o", target, "--rows-per-part", 300]
    assert run_tfbatch(*words).code == 0
    assert pq.read_table(target).select(["id", "text", "weight"]).equals(pq.read_table(reviews))
    assert list((tmp_path / "out.parquet.tfbatch").glob("part-*")) == []
    assert run_tfbatch(*words).result["status"] == "already done"
    target.unlink()
    target.write_text("mine")
    refused = run_tfbatch(*words)
    assert (refused.code, target.read_text()) == (73, "mine")
    assert run_tfbatch(*words, "--overwrite").code == 0
    assert pq.read_table(target).num_rows == 1000


def test_what_files_say_of_their_columns_goes_on_where_it_still_holds(text_bundle: Path, tmp_path: Path) -> None:
    """Of columns that are no names pandas could not read the new ones."""
    named, numbered = ({"column_indexes": [{"pandas_type": kind}], "n": 0} for kind in ("unicode", "int64"))
    levels, none = {"column_indexes": 2 * named["column_indexes"]}, {"column_indexes": None}

    def carried(*files: dict[str, Any], keep: str = "all") -> set[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for index, said in enumerate(files):
            metadata = {name: json.dumps(value) for name, value in said.items()}
            table = pa.table({"text": ["good"], "n": [1]}, metadata=metadata)
            pq.write_table(table, folder / f"{index}.parquet")
        config = RunConfig(inputs=(str(folder),), bundle=text_bundle, keep_columns=keep)
        return {key.decode() for key in make_job(config).schema.metadata or {}}

    assert carried({"pandas": named, "geo": 1, "other": 1}) == {"pandas", "geo"}
    assert carried({"pandas": named, "geo": 1}, keep="text") == set()
    assert carried({"pandas": named, "geo": 1}, {"pandas": named, "geo": 2}) == {"pandas"}
    assert carried({"pandas": named}, {"pandas": named | {"n": 1}}) == carried({"pandas": named}, {}) == set()
    for unfit in (numbered, levels, none, []):
        assert carried({"pandas": unfit}) == set()


def test_limit_takes_the_first_rows(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--limit", 42)
    assert done.result["rows"] == 42
    assert read_output(tmp_path / "out")["id"].to_pylist() == list(range(42))


def test_settings_come_from_the_command_line_then_the_environment_then_the_file(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    config = tmp_path / "night.toml"
    config.write_text(f'bundle = "{text_bundle}"\nlimit = 10\nprefix = "file_"\nkeep-columns = ["id"]\n')
    words = ["run", reviews, "--config", config, "-o"]
    environment = {"TFBATCH_PREFIX": "env_", "TFBATCH_LIMIT": "20"}
    assert run_tfbatch(*words, tmp_path / "a").result["rows"] == 10
    assert run_tfbatch(*words, tmp_path / "b", env=environment).result["rows"] == 20
    assert run_tfbatch(*words, tmp_path / "c", "--limit", 30, env=environment).result["rows"] == 30
    assert read_output(tmp_path / "a").column_names[:2] == ["id", "file_predicted_label"]
    assert read_output(tmp_path / "c").column_names[:2] == ["id", "env_predicted_label"]
    config.write_text("limmit = 10\n")
    done = run_tfbatch(*words, tmp_path / "d")
    assert (done.code, "there is no setting limmit" in done.err) == (78, True)


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("labels = 5", "labels to 5; it takes a text or a list of texts"),
        ("top-k = [1]", "top-k to [1]; it takes a whole number"),
        ("top-k = 1.7", "top-k to 1.7; it takes a whole number"),
        ("threads = true", "threads to True; it takes a whole number"),
        ("threshold = true", "threshold to True; it takes a number"),
        ("all-scores = 1.0", "all-scores to 1.0; it takes true or false"),
        ("metrics-file = 3", "metrics-file to 3; it takes a text"),
        ("keep-columns = [[1]]", "keep-columns to [[1]]; it takes a text or a list of texts"),
        ("prefix = 2026-01-31", "prefix to datetime.date(2026, 1, 31); it takes a text"),
    ],
)
def test_a_setting_of_the_wrong_kind_in_a_file_is_refused(setting: str, wanted: str, tmp_path: Path) -> None:
    """Neither cut to what fits, as 1.7 would be, nor a stack."""
    (tmp_path / "night.toml").write_text(setting)
    done = run_tfbatch("run", "in.parquet", "--config", "night.toml", cwd=tmp_path)
    assert (done.code, done.err) == (78, f"tfbatch: --config night.toml sets {wanted}\n")
    assert done.result["exit_code"] == 78


def test_a_setting_that_is_none_or_of_the_wrong_kind_is_told_of_as_the_others_ask(tmp_path: Path) -> None:
    for setting, said in (("top-k = 1.7", "top-k to 1.7"), ("top-p = 1", "there is no setting top-p")):
        (tmp_path / "night.toml").write_text(f'{setting}\nlog-format = "json"\nmetrics-file = "night.prom"\n')
        done = run_tfbatch("run", "in.parquet", "--config", "night.toml", cwd=tmp_path)
        assert (done.code, said in json.loads(done.err)["message"]) == (78, True), done.err
        assert 'tfbatch_exit_code{run="night"} 78' in (tmp_path / "night.prom").read_text()
        (tmp_path / "night.prom").unlink()


def test_a_value_that_is_refused_is_told_of_with_where_it_came_from(tmp_path: Path) -> None:
    (tmp_path / "night.toml").write_text("rows-per-part = -3")
    for words, variables, told in (
        (["--seed", "x"], {}, "'--seed': 'x'"),
        ([], {"TFBATCH_SEED": "x"}, "TFBATCH_SEED in the environment: 'x'"),
        (["--config", "night.toml"], {}, "rows-per-part in the --config file: -3"),
    ):
        done = run_tfbatch("run", "in.parquet", *words, cwd=tmp_path, env=variables)
        assert (done.code, done.err.startswith(f"tfbatch: Invalid value for {told}")) == (2, True), done.err


def test_a_variable_that_is_nearly_a_setting_is_told_of_and_no_other(tmp_path: Path) -> None:
    """A guard that was misspelt guards nothing; a container's own variables are none of ours."""
    variables = {
        "TFBATCH_MAX_ERROR": "0",
        "TFBATCH_SERVICE_PORT": "80",
        "TFBATCH_TAG": "v1",
        "TFBATCH_MODELS_DIR": "m",
        "TFBATCH_SEED": "1",
        "TFBATCH_CONFIG": "",
    }
    done = run_tfbatch("run", "none.parquet", cwd=tmp_path, env=variables)
    asked = "the environment has TFBATCH_MAX_ERROR, which is no setting; did you mean TFBATCH_MAX_ERRORS?"
    assert done.err.splitlines()[:-1] == [f"tfbatch: {asked}"]


def test_columns_are_kept_whatever_their_names_hold(text_bundle: Path, tmp_path: Path) -> None:
    columns = {"text": ["good film"], "a,b": [1], " c ": [2], "d": [3], "all": [4]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")

    def kept(setting: str, *words: str) -> list[str]:
        (tmp_path / "night.toml").write_text(setting)
        words = ("run", str(tmp_path / "in.parquet"), "-m", str(text_bundle), "--input-column", "text", *words)
        done = run_tfbatch(*words, "--config", tmp_path / "night.toml", "--dry-run")
        assert done.code == 0, done.err
        return [name for name in columns if f": {name}," in done.err or f", {name}," in done.err]

    assert kept('keep-columns = ["a,b", " c "]') == ["a,b", " c "]
    assert kept('keep-columns = ["all"]') == ["all"]
    assert kept("keep-columns = []") == []
    assert kept("", "--keep-columns", "a,b") == ["a,b"]
    assert kept("", "--keep-columns", " c ") == [" c "]
    assert kept("", "--keep-columns", "d, text") == ["text", "d"]


def test_a_dry_run_says_the_plan_and_makes_nothing(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--dry-run")
    assert (done.code, done.result["status"], done.result["rows"]) == (0, "planned", 1000)
    assert "predicted_label" in done.err
    assert not (tmp_path / "out").exists()


def test_pictures_of_all_kinds_are_scored_and_broken_ones_explained(
    image_bundle: Path, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    cells = [picture(form="PNG"), picture(form="JPEG"), b"<svg/>", picture()[:200], None, b"", picture(mode="L")]
    struct = pa.array([{"bytes": cell, "path": None} for cell in cells])
    pq.write_table(pa.table({"image": struct}), tmp_path / "struct.parquet")
    pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), tmp_path / "binary.parquet")
    for form in ("struct", "binary"):
        done = run_tfbatch("run", tmp_path / f"{form}.parquet", "-m", image_bundle, "-o", tmp_path / form)
        assert done.code == 0, done.err
        codes = [error and error.split(":")[0] for error in read_output(tmp_path / form)["error"].to_pylist()]
        assert codes == [None, None, "undecodable", "undecodable", "null", "undecodable", None]


def test_every_refusal_says_what_was_found_and_what_to_type(
    reviews: Path, text_bundle: Path, image_bundle: Path, tmp_path: Path
) -> None:
    two = tmp_path / "two.parquet"
    pq.write_table(pa.table({"title": ["a"], "body": ["b"], "n": [1]}), two)
    taken = tmp_path / "taken.parquet"
    pq.write_table(pa.table({"text": ["a"], "error": [1]}), taken)
    case = tmp_path / "case.parquet"
    pq.write_table(pa.table({"text": ["a"], "Predicted_Label": ["b"]}), case)
    pipe = tmp_path / "pipe.parquet"
    os.mkfifo(pipe)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(reviews.read_bytes()[:-20])
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "rows.parquet").write_bytes(reviews.read_bytes())
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "mine.txt").write_text("mine")
    m = ["-m", text_bundle]
    cases: list[tuple[int, list[object], list[str]]] = [
        (2, [reviews, *m, "--input-column", "body"], ["no column body", "text (string)"]),
        (2, [two, *m], ["title, body", "Choose one of them: --input-column NAME"]),
        (2, [reviews, *m, "--input-column", "id"], ["id is int64", "text"]),
        (2, [reviews, "-m", image_bundle], ["no column holds image", "text (string)"]),
        (2, [taken, *m, "--input-column", "text"], ["a column error already", "--prefix"]),
        (2, [reviews, *m, "--keep-columns", "id,nope"], ["nope", "id, text, weight"]),
        (2, [reviews, *m, "--batch-tokens", "many"], ["--batch-tokens"]),
        (2, [reviews, *m, "--device", "gpu"], ["auto, cpu, openvino, cuda, cuda:N or cuda:N,M"]),
        (2, [reviews, *m, "--max-errors", "many"], ["--max-errors", "1%"]),
        (2, [reviews, *m, "--task", "image-classification"], ["is for text-classification"]),
        (2, [reviews, *m, "--max-length", "65"], ["3 to 64 tokens"]),
        (2, ["", *m], ["INPUT", "empty"]),
        (2, [reviews, "-m", ""], ["--bundle", "empty"]),
        (2, [reviews, *m, "-o", ""], ["--output is empty"]),
        (2, [reviews, *m, "--metrics-file", ""], ["--metrics-file", "empty"]),
        (2, [reviews, *m, "--input-column", ""], ["--input-column is empty"]),
        (2, [reviews, *m, "-o", "scores.csv"], ["Parquet is written, not .csv"]),
        (2, [case, *m, "--input-column", "text"], ["a column Predicted_Label already", "--prefix"]),
        (66, [pipe, *m], ["pipe.parquet is no file", "save it to a file"]),
        (66, ["-", *m], ["standard input", "save it to a file"]),
        (65, [broken, *m], ["broken.parquet is not a readable Parquet file"]),
        (66, [tmp_path / "nowhere.parquet", *m], ["nowhere.parquet does not exist"]),
        (73, [reviews, *m, "-o", tmp_path / "foreign"], ["not tfbatch's"]),
        (73, [tmp_path / "review*.parquet", *m, "-o", reviews, "--overwrite"], ["lie in one another"]),
        (73, [tmp_path / "sub", *m, "-o", tmp_path / "sub" / "out"], ["lie in one another"]),
        (73, [tmp_path / "su*", *m, "-o", tmp_path / "sub" / "out"], ["lie in one another"]),
        (73, [tmp_path / "sub" / "**", *m, "-o", tmp_path / "sub" / "out"], ["lie in one another"]),
        (73, [tmp_path / "rev*.parquet", *m, "-o", tmp_path / "rev2.parquet"], ["would be input the next time"]),
        (73, [reviews, *m, "-o", tmp_path / "two.parquet" / "out", "--dry-run"], ["cannot be used"]),
        (66, [tmp_path / ("a" * 300), *m], ["File name too long"]),
        (78, [reviews, "-m", tmp_path / "nothing"], ["is not a bundle", "nothing of that name"]),
        (78, [reviews, "-m", reviews], ["is not a bundle", "it is a file"]),
        (78, [reviews, "-m", text_bundle.parent], ["is not a bundle", "name one of them", str(text_bundle)]),
        (78, [reviews, "-m", reviews.parent], ["is not a bundle", "tfbatch export"]),
        (2, [reviews, *m, "--text-pair-column", "text"], ["no column but text holds text"]),
        (2, [reviews, "--input-column", "id"], ["column id fits none of"]),
        (78, [reviews], ["models/sentiment", "make export"]),
        (78, [reviews, *m, "--precision", "int8"], ["no int8 graph", "fp32"]),
    ]
    for code, words, phrases in cases:
        done = run_tfbatch("run", *words, cwd=tmp_path)
        assert done.code == code, (words, done)
        assert done.result["exit_code"] == code
        assert len(done.err.strip().splitlines()) == 1, done.err
        for phrase in phrases:
            assert phrase in done.err, (phrase, done.err)
    assert not list(tmp_path.glob("*-predictions"))


@pytest.mark.parametrize(
    ("asked", "environment"),
    [
        (["--metrics-file", "run.prom", "--log-format=json"], {}),
        ([], {"TFBATCH_METRICS_FILE": "run.prom", "TFBATCH_LOG_FORMAT": "json"}),
        (["--config", "night.toml"], {}),
    ],
    ids=["command line", "environment", "config file"],
)
def test_a_mistake_in_the_command_itself_is_reported_where_it_asks_for(
    asked: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    metrics = tmp_path / "run.prom"
    (tmp_path / "night.toml").write_text('metrics-file = "run.prom"\nlog-format = "json"\n')
    mistakes = [(2, []), (2, ["in.parquet", "--threads", "0"]), (2, ["--no-such-option", "in.parquet"])]
    if "--config" not in asked:
        mistakes.append((78, ["in.parquet", "--config", "nothing.toml"]))
    for code, mistake in mistakes:
        for words in ([*asked, *mistake], [*mistake, *asked]):
            done = run_tfbatch("run", *words, cwd=tmp_path, env=environment)
            assert (done.code, done.result["status"], done.result["exit_code"]) == (code, "failed", code), done
            logged = json.loads(done.err)
            assert (logged["exit_code"], logged["message"]) == (code, done.result["reason"])
            assert f'tfbatch_exit_code{{run="run"}} {code}' in metrics.read_text()
            metrics.unlink()


def test_a_mistake_in_the_command_itself_is_told_whatever_else_it_says(tmp_path: Path) -> None:
    for words in (["--seed"], ["--quiet=1"], ["x", "--log-format", "xml"], ["x", "--metrics-file", "no/x", "--seed=x"]):
        done = run_tfbatch("run", *words, cwd=tmp_path)
        assert (done.code, done.result["exit_code"]) == (2, 2), done
        assert all(line.startswith("tfbatch: ") for line in done.err.splitlines()), done.err


def test_cuda_that_is_not_there_is_refused_not_replaced(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    from tfbatch.runtimes.onnxruntime_session import cuda_problem

    if cuda_problem(0) is None:
        pytest.skip("there is a GPU here")
    done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--device", "cuda")
    assert done.code == 69
    assert "--device cpu" in done.err
    assert not (tmp_path / "out").exists()


def test_a_killed_run_goes_on_to_the_same_bytes(text_bundle: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", 40_000, row_group=7000)
    words = ["run", source, "-m", text_bundle, "--rows-per-part", 3000, "-o"]
    assert run_tfbatch(*words, tmp_path / "whole").code == 0
    command = [sys.executable, "-m", "tfbatch.cli", *map(str, [*words, tmp_path / "killed"])]
    killed = 0
    for parts in (2, 5, 9):
        process = subprocess.Popen(command, env=tfbatch_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list((tmp_path / "killed").glob("part-*"))) < parts:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    assert not (tmp_path / "killed" / "_SUCCESS").exists()
    done = run_tfbatch(*words, tmp_path / "killed")
    assert (done.code, done.result["rows"]) == (0, 40_000)
    assert part_hashes(tmp_path / "killed") == part_hashes(tmp_path / "whole")
    assert list((tmp_path / "killed" / "_tfbatch" / "tmp").iterdir()) == []


def test_a_run_into_one_file_killed_goes_on_to_the_same_bytes(text_bundle: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", 20_000, row_group=700)
    words = ["run", source, "-m", text_bundle, "--rows-per-part", 3000, "-o"]
    assert run_tfbatch(*words, tmp_path / "whole.parquet").code == 0
    target = tmp_path / "killed.parquet"
    command = [sys.executable, "-m", "tfbatch.cli", *map(str, [*words, target])]
    process = subprocess.Popen(command, env=tfbatch_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list((tmp_path / "killed.parquet.tfbatch").glob("part-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not target.exists()
    assert run_tfbatch(*words, target).code == 0
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_keeps_finished_parts(number: int, code: int, text_bundle: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", 40_000, row_group=7000)
    words = [str(word) for word in ("run", source, "-m", text_bundle, "--rows-per-part", 3000, "-o", tmp_path / "out")]
    command = ["env", "--default-signal", sys.executable, "-m", "tfbatch.cli", *words]  # whatever these tests ignore
    process = subprocess.Popen(command, env=tfbatch_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "out").glob("part-*")):
        time.sleep(0.002)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == code, err
    assert json.loads(out.splitlines()[-1])["exit_code"] == code
    assert "goes on from there" in err
    assert run_tfbatch(*words).result["status"] == "done"


def test_a_run_under_nohup_does_not_end_with_its_terminal(text_bundle: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", 4000, row_group=1000)
    words = ["run", source, "-m", text_bundle, "--rows-per-part", 500, "-o", tmp_path / "out"]
    command = ["nohup", sys.executable, "-m", "tfbatch.cli", *map(str, words)]
    process = subprocess.Popen(command, env=tfbatch_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "out").glob("part-*")):
        time.sleep(0.002)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate()
    assert (process.returncode, json.loads(out.splitlines()[-1])["status"]) == (0, "done"), err


@pytest.mark.parametrize(
    ("exit_code", "rows", "records", "is_named"),
    [(75, 5, 0, True), (129, 5, 0, True), (143, 5, 0, True), (143, 5, 1, False), (75, 0, 0, False), (74, 5, 0, False)],
)
def test_where_no_part_was_finished_smaller_ones_are_named(
    exit_code: int, rows: int, records: int, is_named: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    done: Any = {part: {"rows": 3, "errors": 0} for part in range(records)}
    Report(tally=Tally(rows=rows, records=done)).failed(exit_code, "time is up")
    told = json.loads(capsys.readouterr().out)["reason"]
    assert told.startswith("time is up")
    assert ("fewer --rows-per-part" in told) == is_named


def test_quiet_runs_warn(text_bundle: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["good film", None]}), tmp_path / "in.parquet")
    env = {"TFBATCH_MAX_ERROR": "0"}
    done = run_tfbatch("run", tmp_path / "in.parquet", "-m", text_bundle, "-o", tmp_path / "out", "--quiet", env=env)
    assert done.code == 0
    first, second = done.err.splitlines()
    assert "did you mean TFBATCH_MAX_ERRORS" in first
    assert "1 of 2 rows have errors" in second


def test_a_finished_job_is_done_without_a_session(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out"]
    assert run_tfbatch(*words).result["status"] == "done"
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "sitecustomize.py").write_text(
        "import onnxruntime\n"
        "def refuse(*a, **k): raise SystemExit('a session was made')\n"
        "onnxruntime.InferenceSession = refuse\n"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(trap), tfbatch_env()["PYTHONPATH"]])}
    again = run_tfbatch(*words, env=paths)
    assert (again.code, again.result["status"], again.result["rows"]) == (0, "already done", 1000), again
    assert run_tfbatch(*words, "--overwrite", env=paths).code != 0  # the trap does spring


def test_another_jobs_folder_is_refused_naming_what_changed(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out"]
    run_tfbatch(*words)
    before = part_hashes(tmp_path / "out")
    other = run_tfbatch(*words, "--max-length", 10)
    assert other.code == 78
    assert "another --max-length" in other.err
    assert "--overwrite" in other.err
    write_reviews(reviews, 900)
    changed = run_tfbatch(*words)
    assert (changed.code, "is changed since (size, time or inode)" in changed.err) == (78, True)
    assert part_hashes(tmp_path / "out") == before
    assert run_tfbatch(*words, "--overwrite").result["rows"] == 900
    assert len(part_hashes(tmp_path / "out")) == 1


def test_the_second_writer_of_a_folder_is_told_who_the_first_is(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    import fcntl

    state = tmp_path / "out" / "_tfbatch"
    state.mkdir(parents=True)
    with (state / "lock").open("w") as lock:
        lock.write("process 12345 on elsewhere")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_tfbatch("run", reviews, "-m", text_bundle, "-o", tmp_path / "out")
    assert done.code == 75
    assert "process 12345 on elsewhere" in done.err


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("extra", "more.bin is not named"),
        ("link", "model.onnx is a link"),
        ("hard link", "model.onnx is a link"),
        ("changed", "model.onnx is not the file that was verified"),
        ("missing", "model.onnx is missing"),
        ("escape", "../model.onnx is missing"),
        ("domain", "operators of com.microsofT"),
        ("settings", "no number `max_length`"),
    ],
)
def test_a_tampered_bundle_is_refused(name: str, reason: str, reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    from tfbatch.host.hashes import sha256

    copy = tmp_path / "copy"
    copy.mkdir()
    for file in text_bundle.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    graph, manifest = copy / "model.onnx", copy / "tfbatch.json"
    content = json.loads(manifest.read_text())
    if name == "extra":
        (copy / "more.bin").write_bytes(b"x")
    elif name == "link":
        graph.rename(tmp_path / "model.onnx")
        graph.symlink_to(tmp_path / "model.onnx")
    elif name == "hard link":
        os.link(graph, tmp_path / "second name")
    elif name == "changed":
        graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    elif name == "missing":
        graph.unlink()
    elif name == "escape":
        content["files"]["../model.onnx"] = content["files"]["model.onnx"]
    elif name == "domain":
        graph.write_bytes(graph.read_bytes().replace(b"com.microsoft", b"com.microsofT"))
        content["files"]["model.onnx"] = sha256(graph)
    elif name == "settings":
        content["settings"] = {}
    manifest.write_text(json.dumps(content))
    done = run_tfbatch("run", reviews, "-m", copy, "-o", tmp_path / "out")
    assert done.code == 78, done
    assert reason in done.err
    assert not (tmp_path / "out").exists()


def test_memory_does_not_grow_with_the_rows(text_bundle: Path, tmp_path: Path) -> None:
    peaks = {}
    random = np.random.default_rng(0)
    for rows in (20_000, 400_000):
        words = random.choice(WORDS[:-1], (rows, 6))
        texts = pa.array([" ".join(row) for row in words])
        table = pa.table({"id": np.arange(rows), "text": texts, "value": random.random(rows)})
        source = tmp_path / f"{rows}.parquet"
        pq.write_table(table, source, row_group_size=50_000)
        done = run_tfbatch("run", source, "-m", text_bundle, "-o", tmp_path / str(rows))
        assert done.code == 0, done.err
        peaks[rows] = done.result["peak_memory_bytes"]
        assert read_output(tmp_path / str(rows)).select(table.column_names).equals(table)
    assert peaks[400_000] <= 1.10 * peaks[20_000], peaks


def test_a_huge_row_group_is_read_piece_by_piece(text_bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    peaks = {}
    for megabytes in (8, 800):
        rows = megabytes * 50
        payload = pa.array([random.bytes(20_000) for _ in range(rows)], pa.binary())
        texts = [" ".join(random.choice(WORDS[:-1], 5)) for _ in range(rows)]
        source = tmp_path / f"{megabytes}.parquet"
        options = {"compression": "none", "use_dictionary": False, "row_group_size": rows}
        pq.write_table(pa.table({"text": texts, "payload": payload}), source, **options)
        del payload
        words = ["run", source, "-m", text_bundle, "-o", tmp_path / f"out{megabytes}", "--input-column", "text"]
        done = run_tfbatch(*words, "--keep-columns", "payload")
        assert done.code == 0, done.err
        peaks[megabytes] = done.result["peak_memory_bytes"]
        source.unlink()
    assert peaks[800] - peaks[8] <= 150e6, peaks


def test_an_image_column_decides_the_default_model(image_bundle: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "fashion").symlink_to(image_bundle)
    sample = ROOT / "examples" / "fashion" / "sample.parquet"
    done = run_tfbatch("run", sample, "-o", tmp_path / "out", "--limit", 5, env={"TFBATCH_MODELS": str(models)})
    assert done.code == 0, done.err
    assert (done.result["task"], done.result["rows"]) == ("image-classification", 5)


def test_folders_patterns_and_repeated_files_give_each_file_once(text_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "spark.parquet").mkdir(parents=True)
    (tmp_path / "in" / "_tmp").mkdir()
    for name in ("a.parquet", "spark.parquet/part-0.parquet", "_tmp/b.parquet"):
        write_reviews(tmp_path / "in" / name, 10)
    words = ["-m", text_bundle, "--dry-run"]
    assert run_tfbatch("run", tmp_path / "in", *words).result["rows"] == 20
    assert run_tfbatch("run", tmp_path / "i*", *words).result["rows"] == 20
    assert run_tfbatch("run", "in/a.parquet", tmp_path / "in" / "a.parquet", *words, cwd=tmp_path).result["rows"] == 10
    within = run_tfbatch("run", ".", "-m", text_bundle, "--dry-run", cwd=tmp_path / "in")
    assert (within.code, "lie in one another" in within.err) == (73, True)


def test_a_full_disk_is_exit_74_and_the_next_run_finishes(text_bundle: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", 3000)
    words = [
        sys.executable,
        "-m",
        "tfbatch.cli",
        "run",
        str(source),
        "-m",
        str(text_bundle),
        "-o",
        str(tmp_path / "out"),
    ]
    for blocks in (2, 5, 22, 40):  # of 1,024 bytes: the largest file this shell may write
        shell = f"ulimit -f {blocks}; trap '' XFSZ; exec \"$@\""
        done = subprocess.run(["bash", "-c", shell, "bash", *words], env=tfbatch_env(), capture_output=True, text=True)
        assert done.returncode == 74, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["exit_code"] == 74
        assert not list((tmp_path / "out").glob("part-*"))
        assert not list((tmp_path / "out" / "_tfbatch" / "tmp").iterdir())
    assert run_tfbatch(*words[3:]).code == 0


def test_tiny_pages_that_decode_large_are_read_in_pieces(text_bundle: Path, tmp_path: Path) -> None:
    peaks = {}
    for characters in (50, 50_000):
        pq.write_table(pa.table({"text": ["good " * (characters // 5)] * 6000}), tmp_path / "in.parquet")
        out = tmp_path / str(characters)
        done = run_tfbatch("run", tmp_path / "in.parquet", "-m", text_bundle, "-o", out, "--keep-columns", "none")
        assert done.code == 0, done.err
        peaks[characters] = done.result["peak_memory_bytes"]
    assert peaks[50_000] - peaks[50] < 120e6, peaks


def test_an_unrecorded_part_of_another_job_is_not_left_beside_this_ones(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out"]
    assert run_tfbatch(*words).code == 0
    (tmp_path / "out" / "_SUCCESS").unlink()
    for record in (tmp_path / "out" / "_tfbatch" / "done").iterdir():
        record.unlink()  # as if the process had died between the link and the record
    done = run_tfbatch(*words, "--max-length", 10)
    assert (done.code, done.result["rows"]) == (0, 1000)
    assert read_output(tmp_path / "out").num_rows == 1000


def test_one_file_is_not_joined_again_after_a_crash_before_success(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.parquet"
    words = ["run", reviews, "-m", text_bundle, "-o", target]
    assert run_tfbatch(*words).code == 0
    inode = target.stat().st_ino
    (tmp_path / "out.parquet.tfbatch" / "_SUCCESS").unlink()
    assert run_tfbatch(*words).result["status"] == "done"
    assert target.stat().st_ino == inode
    assert run_tfbatch(*words, "--overwrite").code == 0
    assert target.stat().st_ino != inode


def test_a_dictionary_column_costs_no_more_than_its_strings(text_bundle: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = [f"category {number} of many, with a long name" for number in range(5000)]
    column = pa.array([values[index] for index in random.integers(0, 5000, 20_000)])
    sizes = {}
    for kind, cells in (("plain", column), ("dictionary", column.dictionary_encode())):
        pq.write_table(pa.table({"text": ["good film"] * 20_000, "kind": cells}), tmp_path / f"{kind}.parquet")
        words = ["-m", text_bundle, "-o", tmp_path / kind, "--input-column", "text"]
        done = run_tfbatch("run", tmp_path / f"{kind}.parquet", *words)
        assert done.code == 0, done.err
        assert read_output(tmp_path / kind)["kind"].cast(pa.string()).equals(pa.chunked_array([column]))
        sizes[kind] = sum(path.stat().st_size for path in (tmp_path / kind).glob("part-*"))
    assert sizes["dictionary"] < 1.5 * sizes["plain"], sizes


def test_a_threshold_that_no_score_can_reach_is_refused(text_bundle: Path, reviews: Path) -> None:
    done = run_tfbatch("run", reviews, "-m", text_bundle, "--threshold", 2)
    assert (done.code, "--threshold 2 is reached by no label" in done.err) == (2, True), done.err


def test_labels_over_a_threshold_are_listed_best_first(text_bundle: Path, reviews: Path, tmp_path: Path) -> None:
    words = ["--all-scores", "--threshold", 0.3, "-o", tmp_path / "out"]
    assert run_tfbatch("run", reviews, "-m", text_bundle, *words).code == 0
    rows = read_output(tmp_path / "out").to_pylist()
    for row in rows:
        over = [scored["label"] for scored in row["predicted_scores"] if scored["score"] >= np.float32(0.3)]
        assert row["predicted_labels"] == over
    assert {len(row["predicted_labels"]) for row in rows} == {1, 2, 3}
