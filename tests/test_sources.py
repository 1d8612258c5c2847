"""Input files as they are found, known again, and read."""

import errno
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_reviews
from tfbatch.choices.output_choice import choose_output
from tfbatch.config import RunConfig
from tfbatch.errors import BadInput, NoInput, OutputRefused, TryAgain
from tfbatch.inputs.sources import find_sources, hive_folders, unreadable
from tfbatch.plan import declared_features, make_plan
from tfbatch.reporting.report import what_failed


def test_a_file_is_in_the_same_folders_however_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "team=a/in/day=1"
    folder.mkdir(parents=True)
    write_reviews(folder / "reviews.parquet", 5)
    monkeypatch.chdir(tmp_path / "team=a")
    names = ("in", str(tmp_path / "team=a/in"), "in/day=1/../day=1/reviews.parquet", "in/*/*.parquet")
    assert {str(hive_folders(source)) for source in find_sources(names)} == {"team=a/day=1"}
    assert len({str(hive_folders(find_sources((name,))[0])) for name in names}) == 1


def test_linked_folders_are_input_too_and_one_that_leads_back_is_not_followed_for_ever(tmp_path: Path) -> None:
    (tmp_path / "in/day=1").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    for path in ("in/day=1/a.parquet", "elsewhere/b.parquet"):
        (tmp_path / path).write_bytes(b"x")
    (tmp_path / "in/day=2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/day=1/back").symlink_to(tmp_path / "in")
    found = find_sources((str(tmp_path / "in"),))
    assert [source.path.removeprefix(f"{tmp_path}/") for source in found] == [
        "in/day=1/a.parquet",
        "in/day=2/b.parquet",
    ]


def test_a_file_that_is_replaced_while_its_footer_is_read_is_known_as_neither(reviews: Path, tmp_path: Path) -> None:
    (source,) = find_sources((str(reviews),))
    before = source.identity()
    with source.open() as opened:
        assert source.identity_of(opened) == before
        write_reviews(tmp_path / "new.parquet", 7).replace(reviews)
        assert source.identity_of(opened) not in (before, source.identity())


def test_files_of_one_job_share_what_is_the_same_of_them(tmp_path: Path) -> None:
    for name in "ab":
        write_reviews(tmp_path / f"{name}.parquet", 5)
    first, second = make_plan((str(tmp_path),)).in_parts(10).files
    assert second.schema is first.schema


@pytest.mark.parametrize("error", [pa.ArrowMemoryError("malloc failed"), OSError(errno.EMFILE, "Too many open files")])
def test_a_machine_that_is_short_of_something_is_not_the_inputs_fault(error: Exception, reviews: Path) -> None:
    (source,) = find_sources((str(reviews),))
    assert isinstance(unreadable(source, "cannot be read", error), TryAgain)
    assert isinstance(unreadable(source, "cannot be read", OSError(errno.EIO, "broken")), BadInput)


@pytest.mark.parametrize("error", [OSError(errno.EAGAIN, "no more processes"), RuntimeError("can't start new thread")])
def test_a_machine_that_is_short_of_processes_is_to_be_tried_again(error: Exception) -> None:
    assert what_failed(error)[0] == TryAgain.exit_code
    assert what_failed(OSError(errno.EIO, "broken"))[0] == 1


@pytest.mark.parametrize("words", [["in"], ["in/*"], ["in/**/*.parquet"], ["in/*/*.parquet"], ["in/**"], ["in/**/"]])
def test_a_file_is_in_its_own_hive_folder_whatever_links_lead_to_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for day in (1, 2):
        (tmp_path / f"in/day={day}").mkdir(parents=True)
        (tmp_path / f"in/day={day}/a.parquet").write_bytes(b"x")
    (tmp_path / "in/current").symlink_to("day=2")
    (tmp_path / "in/day=1/next").symlink_to("../day=2")
    (tmp_path / "in/day=1/0.parquet").symlink_to("../day=2/a.parquet")
    found = find_sources(tuple(words))
    assert [source.path for source in found] == ["in/day=1/a.parquet", "in/day=2/a.parquet"]


def test_folders_that_are_linked_to_one_another_are_walked_once_each(tmp_path: Path) -> None:
    names = "abcdef"
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.parquet").write_bytes(b"x")
        for other in set(names) - {name}:
            (tmp_path / name / f"to-{other}").symlink_to(f"../{other}")
    for text in (tmp_path, tmp_path / "a", f"{tmp_path}/**/*.parquet", f"{tmp_path}/**", f"{tmp_path}/**/rows.parquet"):
        assert len(find_sources((str(text),))) == len(names)


def test_a_link_to_what_it_lies_in_is_not_followed(tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / f"data/day={day}").mkdir(parents=True)
        (tmp_path / f"data/day={day}/a.parquet").write_bytes(b"x")
    (tmp_path / "data/day=1/up").symlink_to("..")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").symlink_to("../data/day=1")
    (tmp_path / "in/_y").symlink_to("../data/day=2")
    assert [source.path for source in find_sources((f"{tmp_path}/in",))] == [f"{tmp_path}/in/x/a.parquet"]
    (tmp_path / "in/z").symlink_to("../data/day=2")
    paths = [f"{tmp_path}/in/x/a.parquet", f"{tmp_path}/in/z/a.parquet"]
    assert [source.path for source in find_sources((f"{tmp_path}/in",))] == paths


def test_of_several_links_to_a_file_the_first_names_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "rows").write_bytes(b"x")
    for name in "cab":
        (tmp_path / "in" / f"{name}.parquet").symlink_to("../rows")
    assert [Path(source.path).name for source in find_sources((f"{tmp_path}/in",))] == ["a.parquet"]


def test_no_output_lies_where_a_link_takes_input_from(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "data").mkdir()
    write_reviews(tmp_path / "data/a.parquet", 5)
    (tmp_path / "in/x").symlink_to("../data")
    plan = make_plan((f"{tmp_path}/in",)).in_parts(10)
    for inputs in ((f"{tmp_path}/in",), (f"{tmp_path}/in/**/*.parquet",)):
        with pytest.raises(OutputRefused, match="lie in one another"):
            choose_output(RunConfig(inputs=inputs, output=f"{tmp_path}/data/out"), plan, tmp_path / "bundle")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.parquet")
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(NoInput, match=r"udcff.*not UTF-8"):
        find_sources((str(tmp_path),))


def test_what_datasets_says_of_a_column_goes_on_where_all_files_say_it(tmp_path: Path) -> None:
    for name, kind, mark in (("a", "Image", "1"), ("b", "Value", "2")):
        features = {"picture": {"_type": "Image"}, "other": {"_type": kind}}
        said = {"huggingface": json.dumps({"info": {"features": features}, "fingerprint": mark})}
        table = pa.table({"picture": [b"x"], "other": [b"y"]}).replace_schema_metadata(said)
        pq.write_table(table, tmp_path / f"{name}.parquet")
    schema = make_plan((str(tmp_path),)).in_parts(10).schema
    assert declared_features(schema.metadata) == {"picture": {"_type": "Image"}}
