"""Where an output may lie, so that the same command means the same the next night."""

import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from conftest import run_tfbatch, tfbatch_env, write_reviews
from tfbatch.choices.output_choice import choose_output, default_output, would_match
from tfbatch.config import RunConfig
from tfbatch.errors import OutputRefused, UsageError
from tfbatch.plan import Plan, make_plan


@pytest.fixture
def months(tmp_path: Path) -> Path:
    """Two folders with a file each, and the working directory above them."""
    for name in ("2024-01", "2024-02"):
        (tmp_path / "in" / name).mkdir(parents=True)
        write_reviews(tmp_path / "in" / name / "a.parquet", 4)
    return tmp_path


def plan_of(*inputs: object) -> Plan:
    return make_plan(tuple(map(str, inputs))).in_parts(10)


@pytest.mark.parametrize(
    ("pattern", "output"),
    [
        ("in/*/*.parquet", "in/scores"),
        ("in/*/*.parquet", "in/scores.parquet"),
        ("in/*/part-*-*.parquet", "in/scores"),
        ("in/*", "in/new/scores"),
        ("in/2024*/", "in/2024-scores"),
        ("link/*.parquet", "in/2024-01/out.parquet"),
        ("in/2024-01/*.parquet", "link/out.parquet"),
    ],
)
def test_what_a_pattern_would_match_the_next_time_is_refused(
    months: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, output: str
) -> None:
    monkeypatch.chdir(months)
    (months / "link").symlink_to("in/2024-01")
    plan = plan_of(pattern if "out." in output else "in/2024-01/a.parquet")
    config = RunConfig(inputs=(pattern,), output=output)
    with pytest.raises(OutputRefused, match="would be input the next time"):
        choose_output(config, plan, Path("bundle"))
    with pytest.raises(OutputRefused, match="would be input the next time"):
        choose_output(RunConfig(inputs=(f"{months}/{pattern}",), output=output), plan, Path("bundle"))


@pytest.mark.parametrize(
    ("pattern", "output"),
    [
        ("in/*/*.parquet", "scores"),
        ("in/2024-*/*.parquet", "in/scores"),
        ("in/*/a*.parquet", "in/scores"),
        ("in/*.parquet", "in/2024-01/out.parquet"),
        ("data[1].parquet", "data1.parquet"),
        ("in/*/part-0.parquet", "in/scores"),
        ("*.parquet", ".scored.parquet"),
    ],
)
def test_what_no_pattern_matches_is_taken(
    months: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, output: str
) -> None:
    monkeypatch.chdir(months)
    write_reviews(months / "data[1].parquet", 4)
    plan = plan_of("in/2024-01/a.parquet")
    assert not would_match(pattern, output, plan)
    assert not would_match(f"{months}/{pattern}", output, plan)


def test_patterns_are_looked_at_below_folders_with_brackets_in_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "[x]"
    folder.mkdir()
    plan = plan_of(write_reviews(folder / "a.parquet", 4))
    assert would_match(f"{tmp_path}/[[]x]/*.parquet", f"{folder}/out.parquet", plan)
    assert not would_match(f"{tmp_path}/[[]x]/a*.parquet", f"{folder}/out.parquet", plan)


def test_nothing_lies_in_the_bundle_or_in_the_place_of_the_metrics(months: Path) -> None:
    plan = plan_of(months / "in/2024-01/a.parquet")
    with pytest.raises(OutputRefused, match="lies in bundle"):
        choose_output(RunConfig(inputs=("x",), output=f"{months}/b/out"), plan, months / "b")
    config = RunConfig(inputs=("x",), output=f"{months}/out.parquet", metrics_file=months / "out.parquet")
    with pytest.raises(UsageError, match="is the output too"):
        choose_output(config, plan, months / "b")


def test_the_default_is_no_hive_folder_to_whoever_reads_it(months: Path) -> None:
    (months / "in/2024-01").rename(months / "in/day=1")
    assert choose_output(RunConfig(inputs=(f"{months}/in/day=1",)), plan_of(f"{months}/in/day=1"), months / "b") == (
        "day-1-predictions"
    )


@pytest.mark.parametrize(
    ("inputs", "name"),
    [
        (["in/2024-01/a.parquet"], "a"),
        (["in/2024-01"], "2024-01"),
        (["in/2024-01/*.parquet"], "2024-01"),
        (["in/*/a.parquet"], "in"),
        (["i*/2024-01/a.parquet"], "{here}"),
        (["latest.parquet"], "latest"),
        (["latest"], "latest"),
        (["in/2024-01/a.parquet", "in/2024-01/b.parquet"], "2024-01"),
        (["."], "{here}"),
    ],
)
def test_the_default_is_named_by_what_was_typed(
    months: Path, monkeypatch: pytest.MonkeyPatch, inputs: list[str], name: str
) -> None:
    monkeypatch.chdir(months)
    (months / "latest.parquet").symlink_to("in/2024-02/a.parquet")
    (months / "latest").symlink_to("in/2024-02")
    write_reviews(months / "in/2024-01/b.parquet", 4)
    found = default_output(RunConfig(inputs=tuple(inputs)), plan_of(*inputs))
    assert found == f"{name.format(here=months.name)}-predictions"


def test_inputs_of_several_folders_want_a_name_for_the_output(months: Path) -> None:
    inputs = f"{months}/in/2024-01/a.parquet", f"{months}/in/2024-02/a.parquet"
    with pytest.raises(UsageError, match="name the output with -o"):
        default_output(RunConfig(inputs=inputs), plan_of(*inputs))


def test_a_name_with_a_slash_behind_it_is_a_folder_whatever_its_ending(months: Path, text_bundle: Path) -> None:
    for output in ("s.parquet/", "s.parquet/", "s.parquet"):
        done = run_tfbatch("run", "in/2024-01/a.parquet", "-m", text_bundle, "-o", output, cwd=months)
        assert (done.code, len(list((months / "s.parquet").glob("part-*.parquet")))) == (0, 1), done.err
    assert done.result["status"] == "already done"


def test_a_folder_named_as_the_sign_for_home_is_refused_and_never_written_to_in_part(
    months: Path, text_bundle: Path
) -> None:
    (months / "night.toml").write_text('output = "~/scores"')
    done = run_tfbatch("run", "in", "-m", text_bundle, "--config", "night.toml", cwd=months, env={"HOME": str(months)})
    assert (done.code, done.result["reason"]) == (
        2, "--output ~/scores: only a shell knows what ~ is; write the whole path"
    )  # fmt: skip
    done = run_tfbatch("run", "in", "-m", text_bundle, "-o", "./~/scores", cwd=months, env={"HOME": str(months)})
    assert (done.code, len(list((months / "~" / "scores").glob("part-*.parquet")))) == (0, 2), done.err


def test_a_column_is_added_that_no_hive_folder_is_named_like(months: Path, text_bundle: Path) -> None:
    (months / "in/2024-01").rename(months / "in/error=0")
    (months / "in/2024-02").rename(months / "in/error=1")
    words = ["run", "in", "-m", text_bundle, "-o", "out"]
    done = run_tfbatch(*words, cwd=months)
    assert (done.code, "folders error=..." in done.err, "--prefix" in done.err) == (2, True, True), done.err
    assert run_tfbatch(*words, "--prefix", "model_", cwd=months).code == 0
    table = ds.dataset(months / "out", partitioning="hive").to_table()
    assert sorted(table["error"].to_pylist()) == [0] * 4 + [1] * 4
    assert table["model_error"].null_count == 8
    one = run_tfbatch("run", "in/error=0/a.parquet", "-m", text_bundle, "-o", "out.parquet", cwd=months)
    assert (one.code, "error" in pq.read_schema(months / "out.parquet").names) == (0, True)


@pytest.mark.parametrize("kind", ["another's file", "a folder", "a long name"])
def test_a_metrics_file_takes_no_other_files_place(months: Path, text_bundle: Path, kind: str) -> None:
    metrics = months / "in/2024-01/a.parquet"
    if kind == "a folder":
        metrics = months / "in"
    if kind == "a long name":
        metrics = months / ("m" * 250)
    before = pq.read_table(months / "in/2024-01/a.parquet")
    done = run_tfbatch("run", "in", "-m", text_bundle, "-o", "out", "--metrics-file", metrics, cwd=months)
    assert (done.code, "--metrics-file" in done.err, (months / "out").exists()) == (2, True, False), done.err
    words = ["run", "in", "--seed=x", "--metrics-file", metrics]
    assert run_tfbatch(*words, cwd=months).code == 2
    assert pq.read_table(months / "in/2024-01/a.parquet").equals(before)


def test_metrics_are_put_in_the_place_of_metrics_and_of_nothing(months: Path, text_bundle: Path) -> None:
    (months / "run.prom").touch()
    for _ in range(2):
        words = ["run", "in", "-m", text_bundle, "-o", "out", "--metrics-file", "run.prom"]
        assert run_tfbatch(*words, cwd=months).code == 0
        assert (months / "run.prom").read_text().startswith("# HELP tfbatch_success")


def test_an_output_whose_run_file_is_gone_is_mixed_with_no_other_job(months: Path, text_bundle: Path) -> None:
    words = ["run", "in", "-m", text_bundle, "-o", "out"]
    assert run_tfbatch(*words, "--rows-per-part", 3, cwd=months).code == 0
    (months / "out/_tfbatch/run.json").unlink()
    done = run_tfbatch(*words, "--rows-per-part", 2, cwd=months)
    assert (done.code, "run.json is gone" in done.err, "--overwrite" in done.err) == (78, True, True), done.err
    assert run_tfbatch(*words, "--rows-per-part", 2, "--overwrite", cwd=months).code == 0
    assert ds.dataset(months / "out").count_rows() == 8


def test_a_link_to_nothing_is_told_of_as_such(months: Path, text_bundle: Path) -> None:
    (months / "out").symlink_to("nowhere")
    done = run_tfbatch("run", "in", "-m", text_bundle, "-o", "out", cwd=months)
    assert (done.code, "a link to a folder that is not there" in done.err) == (73, True), done.err


def test_a_working_directory_that_is_gone_is_told_of(months: Path, text_bundle: Path) -> None:
    gone = months / "gone"
    gone.mkdir()
    program = f"import os; os.rmdir({str(gone)!r}); from tfbatch.cli import main; main()"
    words = [sys.executable, "-c", program, "run", str(months / "in"), "-m", str(text_bundle)]
    done = subprocess.run(words, cwd=gone, env=tfbatch_env(), capture_output=True, text=True, check=False)
    assert (done.returncode, "the working directory is gone" in done.stderr) == (73, True), done.stderr


def test_a_standard_output_that_is_not_utf_8_gets_ascii(months: Path, text_bundle: Path) -> None:
    (months / "in/2024-01/a.parquet").rename(months / "日é.parquet")
    env = {"PYTHONIOENCODING": "latin-1"}
    for words, code in ((["日é.parquet"], 0), (["日é.parquet", "--input-column", "日"], 2)):
        done = run_tfbatch("run", *words, "-m", text_bundle, cwd=months, env=env)
        assert (done.code, done.out.isascii()) == (code, True), done.err
    assert "日" in done.result["reason"]


@pytest.mark.parametrize("words", [["--timeout", "nan"], ["--stall-timeout", "nan"], ["--gpu-memory", "inf"]])
def test_numbers_that_are_none_are_refused(months: Path, text_bundle: Path, words: list[str]) -> None:
    done = run_tfbatch("run", "in", "-m", text_bundle, *words, cwd=months)
    assert (done.code, f"{words[0]} {words[1]} is no finite number" in done.err) == (2, True), done.err


def test_files_are_parquet_in_capitals_too(months: Path) -> None:
    write_reviews(months / "in/2024-01/B.PARQUET", 4)
    assert plan_of(months / "in").rows == 12
