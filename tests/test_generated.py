"""Where made pictures go: a column that readers show, files beside the parts, a sheet to look at."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import read_output, run_tfbatch, tfbatch_env, tree
from pictures import IMAGE, PictureModel, pixels, png, write_pictures
from PIL import Image
from tfbatch.batches import Window
from tfbatch.config import RunConfig
from tfbatch.job import make_job
from tfbatch.pictures.contact_sheet import GAP, LINE, SIDE, liveliest
from tfbatch.pictures.generated import declare_images


def test_datasets_shows_the_column_as_images(picture_model: PictureModel, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "in.parquet", 9)
    words = ["-m", picture_model("vit")[1], "-o", tmp_path / "out", "--keep-mask", "--prefix", "vit_"]
    assert run_tfbatch("run", source, *words).code == 0
    program = f"""
import datasets
rows = datasets.load_dataset("parquet", data_files={str(tmp_path / "out" / "part-*")!r}, split="train")
for name in ("vit_generated_image", "vit_masked_image"):
    assert isinstance(rows.features[name], datasets.Image), rows.features
    assert [getattr(row[name], "size", None) for row in rows] == [(32, 32)] * 4 + [None] + [(32, 32)] * 4
    print(type(rows[0][name]).__mro__)
"""
    env = tfbatch_env({"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"})
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PIL.Image.Image") == 2


def test_images_that_the_input_declares_stay_images() -> None:
    features = {"photo": {"_type": "Image"}, "gone": {"_type": "Image"}}
    source = pa.schema([("photo", IMAGE)], metadata={"huggingface": json.dumps({"info": {"features": features}})})
    kept = pa.schema([("photo", IMAGE), ("generated_image", IMAGE)])
    declared = json.loads(declare_images(kept, ["generated_image"], source)[b"huggingface"])
    assert declared["info"]["features"] == {"photo": {"_type": "Image"}, "generated_image": {"_type": "Image"}}
    for nonsense in (b"[]", b"{", b'{"info": null}'):
        broken = pa.schema([], metadata={"huggingface": nonsense})
        assert declare_images(pa.schema([]), [], broken) == {}


def test_files_hold_what_the_column_would(picture_model: PictureModel, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "in.parquet", 23)
    outputs = {}
    for sink in ("column", "files", "both"):
        words = ["--images", sink, "--keep-mask", "--rows-per-part", 10, "--prefix", "a/b_", "-o", tmp_path / sink]
        done = run_tfbatch("run", source, "-m", picture_model("vit")[1], *words)
        assert done.code == 0, done.err
        outputs[sink] = read_output(tmp_path / sink)
    assert outputs["column"].drop_columns(["a/b_generated_image", "a/b_masked_image"]).num_rows == 23
    for name, ending in (("a/b_generated_image", ".png"), ("a/b_masked_image", "-masked_image.png")):
        assert outputs["files"].schema.field(name).type == pa.string()
        in_column, in_files, in_both = (outputs[sink][name].to_pylist() for sink in ("column", "files", "both"))
        for row, (cell, path, both) in enumerate(zip(in_column, in_files, in_both, strict=True)):
            if cell is None:
                assert path is both is None
                continue
            assert Path(path).name == f"{row:010d}{ending}"
            assert (tmp_path / "files" / path).read_bytes() == cell["bytes"] == both["bytes"]
            assert (tmp_path / "both" / both["path"]).read_bytes() == cell["bytes"]
            assert cell["path"] is None
    assert pq.read_table(tmp_path / "files").num_rows == 23, "pictures are in nobody's way who reads the folder"
    assert len(list((tmp_path / "files" / "_images").iterdir())) == 3
    assert len(list((tmp_path / "files" / "_images").rglob("*.png"))) == 2 * (23 - 4)


def test_a_killed_run_goes_on_to_the_same_files(picture_model: PictureModel, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "in.parquet", 900)
    words = ["run", source, "-m", picture_model("vit")[1], "--images", "both", "--rows-per-part", 100, "--keep-mask"]
    assert run_tfbatch(*words, "-o", tmp_path / "whole").code == 0
    command = [sys.executable, "-m", "tfbatch.cli", *map(str, [*words, "-o", tmp_path / "killed"])]
    killed = 0
    for parts in (1, 3, 6):
        process = subprocess.Popen(command, env=tfbatch_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list((tmp_path / "killed").glob("part-*"))) < parts:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    assert run_tfbatch(*words, "-o", tmp_path / "killed", "--threads", 1).code == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert len(tree(tmp_path / "whole")) == 9 + 2 * 720


def test_pictures_left_by_a_crash_are_replaced_and_lost_ones_made_again(
    picture_model: PictureModel, tmp_path: Path
) -> None:
    source = write_pictures(tmp_path / "in.parquet", 20)
    words = ["run", source, "-m", picture_model("vit")[1], "--images", "files", "--rows-per-part", 10]
    words += ["-o", tmp_path / "out"]
    assert run_tfbatch(*words).code == 0
    whole = tree(tmp_path / "out")
    first, second = sorted((tmp_path / "out" / "_images").iterdir())
    (tmp_path / "out" / "_tfbatch" / "done" / f"{first.name}.parquet.json").unlink()  # as if killed before the record
    (first / "0000000001.png").write_bytes(b"short")
    (first / "stale.png").write_bytes(b"stale")
    for file in second.iterdir():
        file.unlink()
    second.rmdir()
    assert run_tfbatch(*words).result["status"] == "done"
    assert tree(tmp_path / "out") == whole
    assert run_tfbatch(*words).result["status"] == "already done"


def test_starting_anew_takes_its_pictures_away_and_no_others(picture_model: PictureModel, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "in.parquet", 10)
    words = ["run", source, "-m", picture_model("vit")[1], "-o", tmp_path / "out"]
    assert run_tfbatch(*words, "--images", "files", "--contact-sheet", 2).code == 0
    (tmp_path / "out" / "_images" / "holiday").mkdir()
    refused = run_tfbatch(*words)
    assert (refused.code, "--images" in refused.err) == (78, True)
    assert run_tfbatch(*words, "--overwrite").code == 0
    assert [path.name for path in (tmp_path / "out" / "_images").iterdir()] == ["holiday"]
    assert not (tmp_path / "out" / "_tfbatch" / "contact_sheet.png").exists()


@pytest.mark.parametrize("name", ["vit", "swin2sr"])
def test_a_contact_sheet_shows_the_first_good_rows_and_is_kept(
    name: str, picture_model: PictureModel, tmp_path: Path
) -> None:
    source = write_pictures(tmp_path / "in.parquet", 12)
    words = ["run", source, "-m", picture_model(name)[1], "-o", tmp_path / "out"]
    assert run_tfbatch(*words, "--contact-sheet", 5).code == 0
    sheet = tmp_path / "out" / "_tfbatch" / "contact_sheet.png"
    with Image.open(sheet) as picture:
        assert picture.width > 700
        assert len(np.unique(np.asarray(picture.convert("L")))) > 100
    before = sheet.read_bytes()
    assert before.startswith(b"\x89PNG")
    next((tmp_path / "out").glob("part-*")).unlink()
    assert run_tfbatch(*words, "--contact-sheet", 3).result["status"] == "done"
    assert sheet.read_bytes() == before


def test_a_contact_sheet_that_there_are_no_rows_for_is_told_of(picture_model: PictureModel, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "in.parquet", 3)
    words = ["run", source, "-m", picture_model("vit")[1], "-o", tmp_path / "out", "--contact-sheet", 2]
    assert run_tfbatch(*words).code == 0
    (tmp_path / "out" / "_tfbatch" / "contact_sheet.png").unlink()
    told = "no contact sheet is drawn: this run scored no row that it could show"
    again = run_tfbatch(*words)
    assert (again.result["status"], told in again.err) == ("already done", True)
    (tmp_path / "out" / "_SUCCESS").unlink()
    again = run_tfbatch(*words)  # as after a crash behind the last row
    assert (again.result["status"], told in again.err) == ("done", True)
    assert not (tmp_path / "out" / "_tfbatch" / "contact_sheet.png").exists()


def test_a_contact_sheet_shows_each_row_on_its_line(picture_model: PictureModel, tmp_path: Path) -> None:
    colours = [(200, 30, 30), None, (30, 200, 30), (30, 30, 200), (200, 200, 30), (30, 200, 200)]
    cells = [b"junk" if colour is None else png(Image.new("RGB", (32, 32), colour)) for colour in colours]
    pq.write_table(pa.table({"image": cells}), tmp_path / "in.parquet")
    words = ["run", tmp_path / "in.parquet", "-m", picture_model("vit")[1], "-o", tmp_path / "out"]
    assert run_tfbatch(*words, "--contact-sheet", 4).code == 0
    with Image.open(tmp_path / "out" / "_tfbatch" / "contact_sheet.png") as sheet:
        side = SIDE // 32 * 32
        assert sheet.height == GAP + 2 * LINE + 4 * (2 * LINE + GAP + side)
        middles = [GAP + 3 * LINE + side // 2 + line * (2 * LINE + GAP + side) for line in range(4)]
        assert [sheet.getpixel((GAP + side // 2, y)) for y in middles] == list(filter(None, colours))[:4]


def test_the_detail_that_is_shown_is_the_liveliest() -> None:
    pixels = np.full((300, 400, 3), 100, np.uint8)
    pixels[200:240, 80:120] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    rows, columns = liveliest(pixels, 40)
    assert abs(rows.start - 200) <= 20
    assert abs(columns.start - 80) <= 20
    assert liveliest(pixels[:10, :12], 40) == (slice(0, 10), slice(0, 12))


def test_jpeg_and_webp_are_smaller_by_their_quality(picture_model: PictureModel, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "in.parquet", 3)
    sizes = []
    for form, quality in (("jpeg", 95), ("jpeg", 20), ("webp", 95), ("webp", 20)):
        words = ["--image-format", form, "--image-quality", quality, "--overwrite", "-o", tmp_path / "out"]
        assert run_tfbatch("run", source, "-m", picture_model("swin2sr")[1], *words).code == 0
        cell = read_output(tmp_path / "out")["generated_image"][0].as_py()
        assert Image.open(io.BytesIO(cell["bytes"])).format == form.upper()
        assert pixels(cell).shape == (60, 80, 3)
        sizes.append(len(cell["bytes"]))
    assert sizes[0] > 2 * sizes[1] > 0
    assert sizes[2] > 2 * sizes[3] > 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--images", "files", "-o", "one.parquet"], "--images files puts files beside the parts"),
        (["--image-quality", 50], "--image-quality is for --image-format jpeg or webp"),
        (["--mask-ratio", 0.5, "--mask-column", "image"], "exclude each other"),
        (["--seed", 3, "--mask-column", "image"], "--seed and --mask-column exclude each other"),
        (["--mask-column", "id"], "column id is int64, which is no mask; columns that are: image"),
        (["--mask-column", "image", "--input-column", "image"], "is the input column too"),
        (["--mask-column", "nothing"], "there is no column nothing"),
        (["--mask-ratio", 0.03], "--mask-ratio 0.03 hides none of the 16 patches of this model; 0.0625 hides one"),
        (["--mask-ratio", 1.5], "is not in the range"),
        (["--all-scores"], "--all-scores: not for masked-im, which has --mask-ratio, --mask-column"),
        (["--max-length", 5, "--top-k", 3], "--max-length, --top-k: not for masked-im"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: list[object], reason: str, picture_model: PictureModel, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in.parquet", 3)
    done = run_tfbatch("run", "in.parquet", "-m", picture_model("vit")[1], *words, cwd=tmp_path)
    assert (done.code, reason in done.err) == (2, True), done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet"]


@pytest.mark.parametrize("name", ["vit", "vit at the original size", "swin2sr"])
def test_what_is_made_of_a_picture_weighs_and_so_does_what_is_carried_along(
    name: str, picture_model: PictureModel, tmp_path: Path
) -> None:
    plain = pq.read_table(write_pictures(tmp_path / "in.parquet", 9, bad=False))
    wide = plain.append_column("page", pa.array(["x" * 10_000] * 9))
    bundle = picture_model(name.split()[0])[1]
    config = RunConfig(inputs=(str(tmp_path / "in.parquet"),), bundle=bundle, original_size="original" in name)
    job = make_job(config)

    def weight(table: pa.Table) -> int:
        return int(job.task.weigh(Window(part=job.plan.parts[0], first=0, rows=table)).sum())

    assert weight(plain) > 9 * 12 * 30 * 40
    assert weight(wide) - weight(plain) == pytest.approx(wide.nbytes - plain.nbytes, rel=0.01)
