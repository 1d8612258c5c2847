"""What is recorded as finished, held against what is there."""

import errno
import json
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import part_hashes, read_output, run_tfbatch, write_reviews
from test_export import copy_bundle
from test_generated import tree, write_pictures
from test_masked_im import PictureModel
from tfbatch.claim import DONE, Claim
from tfbatch.config import RunConfig
from tfbatch.errors import BadConfiguration, BadInput, Interrupted, OutputRefused, TryAgain
from tfbatch.execution import run
from tfbatch.folder import Folder
from tfbatch.hashes import BLOCK, sha256
from tfbatch.job import make_job
from tfbatch.joined import JoinedFile
from tfbatch.plan import make_plan
from tfbatch.progress import Silent
from tfbatch.sources import find_sources, hive_folders, unreadable
from tfbatch.stop import Stop
from tfbatch.tally import Tally


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


def test_rows_are_not_scored_twice_where_their_folder_got_another_name(text_bundle: Path, tmp_path: Path) -> None:
    for day in (1, 2):
        (tmp_path / f"in/day={day}").mkdir(parents=True)
        write_reviews(tmp_path / f"in/day={day}/reviews.parquet", 20, seed=day)
    words = ["-m", text_bundle, "-o", tmp_path / "out"]
    assert run_tfbatch("run", tmp_path / "in", *words).code == 0
    (tmp_path / "in/day=2").rename(tmp_path / "in/day=3")
    done = run_tfbatch("run", tmp_path / "in", *words)
    assert (done.code, "was begun with another input files" in done.err) == (78, True), done.err
    assert read_output(tmp_path / "out").num_rows == 40


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
    first, second = make_plan((str(tmp_path),), rows_per_part=10, limit=None).files
    assert second.schema is first.schema


@pytest.mark.parametrize("error", [pa.ArrowMemoryError("malloc failed"), OSError(errno.EMFILE, "Too many open files")])
def test_a_machine_that_is_short_of_something_is_not_the_inputs_fault(error: Exception, reviews: Path) -> None:
    (source,) = find_sources((str(reviews),))
    assert isinstance(unreadable(source, "cannot be read", error), TryAgain)
    assert isinstance(unreadable(source, "cannot be read", OSError(errno.EIO, "broken")), BadInput)


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
    with pytest.raises(BadConfiguration, match="another file was put in the place of"):
        run(job, Silent(), Tally(), Stop())
    assert not list((tmp_path / "out").glob("part-*"))
    assert run(make_job(config), Silent(), Tally(), Stop())["status"] == "done"


def test_an_output_that_the_input_would_match_is_refused_however_it_is_written(
    reviews: Path, text_bundle: Path, tmp_path: Path
) -> None:
    for pattern in ("*.parquet", "./*.parquet", f"{tmp_path}/*.parquet"):
        done = run_tfbatch("run", pattern, "-m", text_bundle, "-o", "out.parquet", cwd=tmp_path)
        assert (done.code, "would be input the next time" in done.err) == (73, True), done.err
