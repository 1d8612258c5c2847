"""What is recorded as finished, held against what is there."""

import json
import signal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import part_hashes, read_output, run_tfbatch
from test_generated import tree, write_pictures
from test_masked_im import PictureModel
from tfbatch.config import RunConfig
from tfbatch.errors import Interrupted
from tfbatch.execution import run
from tfbatch.folder import Folder
from tfbatch.hashes import BLOCK, sha256
from tfbatch.job import make_job
from tfbatch.joined import JoinedFile
from tfbatch.progress import Silent
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
