"""What is recorded as finished, held against what is there."""

import errno
import json
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bundles import copy_bundle
from conftest import part_hashes, read_output, run_tfbatch, tree, write_reviews
from pictures import PictureModel, write_pictures
from tfbatch.config import RunConfig
from tfbatch.errors import BadConfiguration, Interrupted, OutputRefused, TryAgain
from tfbatch.execution import output_of, run
from tfbatch.host.hashes import BLOCK, sha256
from tfbatch.host.stop import Stop
from tfbatch.job import make_job
from tfbatch.outputs.claim import DONE, Claim
from tfbatch.outputs.folder import Folder
from tfbatch.outputs.joined import JoinedFile
from tfbatch.outputs.output import Output
from tfbatch.plan import Part
from tfbatch.reporting.progress import Silent
from tfbatch.reporting.tally import Tally


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
    picture = next((tmp_path / "out" / "_images").rglob("*.png"))
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


class Heart(Stop):
    """Counts its beats."""

    beats = 0

    def beat(self) -> None:
        super().beat()
        self.beats += 1


def test_hashing_removing_and_listing_get_on_piece_by_piece(tmp_path: Path) -> None:
    heart = Heart()
    folder = Folder(tmp_path, heart.beat)
    (tmp_path / "part").write_bytes(bytes(3 * BLOCK))
    assert folder.sha256("part") == sha256(tmp_path / "part")
    assert heart.beats == 3
    (tmp_path / "more").mkdir()
    assert list(folder.files()) == ["part"]
    assert heart.beats == 5
    folder.remove("part", "more", "nothing")
    assert (heart.beats, list(tmp_path.iterdir())) == (8, [])


def test_joining_gets_on_row_group_by_row_group(tmp_path: Path) -> None:
    heart, table = Heart(), pa.table({"id": range(6)})
    storage = Folder(tmp_path / "out.parquet.tfbatch", heart.beat)
    storage.hold()
    for name in ("a", "b"):
        pq.write_table(table, storage.path(name), row_group_size=2)
    file = JoinedFile(tmp_path / "out.parquet", storage, ["job"])
    file.join(["a", "b"], table.schema)
    storage.release()
    assert heart.beats == 6
    assert file.is_intact()
    assert heart.beats == 6 + 1


def test_verify_gets_on_part_by_part_and_hears_a_stop(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    words = ["run", reviews, "-m", text_bundle, "-o", tmp_path / "out", "--rows-per-part", 300]
    assert run_tfbatch(*words).code == 0
    config = RunConfig(
        inputs=(str(reviews),), bundle=text_bundle, output=str(tmp_path / "out"), rows_per_part=300, verify=True
    )
    heart, job = Heart(), make_job(config)
    assert run(job, Silent(), Tally(), heart)["status"] == "already done"
    assert heart.beats >= 4 * 2, "a record and a block each"
    heart.ask(Interrupted(signal.SIGTERM))
    with pytest.raises(Interrupted):
        run(job, Silent(), Tally(), heart)


def test_a_part_is_not_begun_in_an_output_that_was_removed_meanwhile(tmp_path: Path) -> None:
    folder, other = Folder(tmp_path / "out"), Folder(tmp_path / "out")
    folder.hold()
    folder.ensure_held()
    (tmp_path / "out").rename(tmp_path / "moved")
    with pytest.raises(TryAgain, match="was removed or moved"):
        folder.ensure_held()
    other.hold()
    with pytest.raises(TryAgain, match="was removed or moved"):
        folder.ensure_held()
    other.ensure_held()


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    folder = Folder(tmp_path / "out")
    folder.hold()
    (folder.spool / "part").write_bytes(b"rows")
    folder.publish(folder.spool / "part", "part")
    assert folder.read("part") == b"rows"


def test_a_file_that_is_put_where_the_output_goes_meanwhile_stays(tmp_path: Path) -> None:
    table, target = pa.table({"id": range(6)}), tmp_path / "out.parquet"
    storage = Folder(tmp_path / "out.parquet.tfbatch")
    storage.hold()
    pq.write_table(table, storage.path("a"))
    file = JoinedFile(target, storage, ["job"])
    target.write_bytes(b"a user's")
    with pytest.raises(OutputRefused, match="another file was put at"):
        file.join(["a"], table.schema)
    assert target.read_bytes() == b"a user's"
    (storage.spool / target.name).unlink()  # as whoever goes on does
    file = JoinedFile(target, storage, ["job"])
    target.unlink()
    file.join(["a"], table.schema)
    assert file.is_this_jobs(), "one that only went away is not missed"


def test_rows_are_not_scored_twice_where_their_folder_got_another_name(text_bundle: Path, tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / f"in/day={day}").mkdir(parents=True)
        write_reviews(tmp_path / f"in/day={day}/reviews.parquet", 20, seed=day)
    words = ["-m", text_bundle, "-o", tmp_path / "out"]
    assert run_tfbatch("run", tmp_path / "in", *words).code == 0
    (tmp_path / "in/day=2").rename(tmp_path / "in/day=3")
    done = run_tfbatch("run", tmp_path / "in", *words)
    assert (done.code, "another job's: input" in done.err) == (78, True), done.err
    assert read_output(tmp_path / "out").num_rows == 40


def test_what_another_job_has_of_input_files_is_told(text_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in "abcd":
        write_reviews(tmp_path / f"in/{name}.parquet", 5, seed=ord(name))
    words = ["run", tmp_path / "in", "-m", text_bundle, "-o", tmp_path / "out"]
    assert run_tfbatch(*words).code == 0
    write_reviews(tmp_path / "in/b.parquet", 6)
    (tmp_path / "in/c.parquet").unlink()
    for name in "xy":
        write_reviews(tmp_path / f"in/{name}.parquet", 5)
    done = run_tfbatch(*words, "--prefix", "p_")
    assert done.code == 78
    told = done.result["reason"].replace(f"{tmp_path}/", "")
    assert told.startswith(
        "output out is another job's: another --prefix, input in/x.parquet and 1 others are new, input in/c.parquet "
        "is gone, input in/b.parquet is changed since (size, time or inode). Choose another folder with -o"
    )


def times(out: Path) -> dict[str, int]:
    """When each part was written; a number of a file may come again."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}


def test_overwriting_goes_on_with_what_it_has_begun_and_with_nothing_else(text_bundle: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "in.parquet", 40)
    words = ["run", source, "-m", text_bundle, "-o", tmp_path / "out", "--rows-per-part", 10, "--overwrite"]
    assert run_tfbatch(*words).code == 0
    whole = times(tmp_path / "out")

    def interrupt() -> None:
        (tmp_path / "out" / "_SUCCESS").unlink()
        next((tmp_path / "out").glob("part-*-0000000010-*")).unlink()

    interrupt()
    assert run_tfbatch(*words).result["status"] == "done"
    kept = times(tmp_path / "out")
    assert [whole[name] == time for name, time in sorted(kept.items())] == [True, False, True, True]
    assert run_tfbatch(*words).result["status"] == "done"
    assert not set(times(tmp_path / "out").values()) & set(kept.values()), "a finished one is made anew"
    interrupt()
    assert run_tfbatch(*words, "--prefix", "p_").code == 0
    assert len(times(tmp_path / "out")) == 4, "of another job nothing is left"


def test_a_part_that_somebody_takes_away_meanwhile_is_missed(text_bundle: Path, tmp_path: Path) -> None:
    class Thief(Silent):
        def advance(self, rows: int, errors: int) -> None:
            for part in list((tmp_path / "out").glob("part-*-0000000000-*")):
                part.unlink()

    source = write_reviews(tmp_path / "in.parquet", 40)
    config = RunConfig(inputs=(str(source),), bundle=text_bundle, output=str(tmp_path / "out"), rows_per_part=10)
    with pytest.raises(TryAgain, match=r"part-00000-0000000000.* is gone or changed since this job wrote it"):
        run(make_job(config), Thief(), Tally(), Stop())
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert run(make_job(config), Silent(), Tally(), Stop())["status"] == "done"
    assert read_output(tmp_path / "out").num_rows == 40


def test_a_part_that_was_begun_goes_on_with_settings_that_are_lists(tmp_path: Path) -> None:
    facts = {"--labels": ("good", "bad")}
    for _ in range(2):
        claim = Claim(Folder(tmp_path / "out"), {"facts": facts, "inputs": []})
        claim.take(overwrite=False)
        (tmp_path / f"out/{DONE}").mkdir(exist_ok=True)
        (tmp_path / f"out/{DONE}/part.json").touch()
        claim.release()
    with pytest.raises(BadConfiguration, match="another --labels"):
        Claim(Folder(tmp_path / "out"), {"facts": {"--labels": ("good",)}, "inputs": []}).take(overwrite=False)


def test_a_bundle_that_is_replaced_as_a_job_begins_ends_it(reviews: Path, text_bundle: Path, tmp_path: Path) -> None:
    bundle = copy_bundle(text_bundle, tmp_path / "bundle")
    other = copy_bundle(text_bundle, tmp_path / "other")
    config = RunConfig(inputs=(str(reviews),), bundle=bundle, output=str(tmp_path / "out"))
    job = make_job(config)
    bundle.rename(tmp_path / "old")
    other.rename(bundle)
    with pytest.raises(BadConfiguration, match="is not as it was when it was checked"):
        run(job, Silent(), Tally(), Stop())
    assert not list((tmp_path / "out").glob("part-*"))
    assert run(make_job(config), Silent(), Tally(), Stop())["status"] == "done"


def test_an_output_that_the_input_would_match_is_refused_however_it_is_written(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    for pattern in ("*.parquet", "./*.parquet", f"{tmp_path}/*.parquet"):
        done = run_tfbatch("run", pattern, "-m", text_bundle, "-o", "out.parquet", cwd=tmp_path)
        assert (done.code, "would be input the next time" in done.err) == (73, True), done.err


def begin(reviews: Path, bundle: Path, place: Path) -> tuple[Output, Part, pa.Table]:
    """An output that is held, the one part of its job, and rows for that."""
    job = make_job(RunConfig(inputs=(str(reviews),), bundle=bundle, output=str(place)))
    output = output_of(job, Stop())
    output.open(overwrite=False)
    (part,) = job.plan.parts
    rows = pa.Table.from_arrays([pa.nulls(part.rows, field.type) for field in job.schema], schema=job.schema)
    return output, part, rows


@pytest.mark.parametrize("what", ["part", "file"])
def test_a_part_that_is_under_way_in_an_output_that_goes_away_is_to_be_tried_again(
    what: str, reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    output, part, rows = begin(reviews, text_bundle, tmp_path / "out")
    output.append(part, rows.slice(0, 10), 0)
    (tmp_path / "out").rename(tmp_path / "moved")
    if what == "file":
        (tmp_path / "out").touch()
    with pytest.raises(TryAgain, match="was removed or moved"):
        output.append(part, rows.slice(10), 0)
    output.close()


def test_a_file_whose_parts_go_away_before_they_are_joined_is_to_be_tried_again(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    output, part, rows = begin(reviews, text_bundle, tmp_path / "out.parquet")
    record = output.append(part, rows, 0)
    assert record is not None
    (tmp_path / "out.parquet.tfbatch").rename(tmp_path / "moved")
    with pytest.raises(TryAgain, match="was removed or moved"):
        output.finish({part: record}, {})
    output.close()
