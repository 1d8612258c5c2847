"""Masked image modelling: the mask of each row, what the model makes of it, and what is pasted."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import read_output, run_tfbatch
from pictures import PictureModel, pixels, png, scene
from PIL import Image
from tfbatch.pictures.images import UnfitPicture, to_paint
from tfbatch.pictures.masks import listed_patches, random_patches, spread, touched_patches
from transformers import AutoImageProcessor, AutoModelForMaskedImageModeling, ViTMAEForPreTraining

MASKED = ["vit", "deit", "vit_mae", "swin"]
SIDE = 32


def run_masked(bundle: Path, table: dict[str, Any], folder: Path, *words: object) -> pa.Table:
    pq.write_table(pa.table(table), folder / "in.parquet")
    command = ["run", folder / "in.parquet", "-m", bundle, "-o", folder / "out", "--input-column", "image"]
    done = run_tfbatch(*command, "--overwrite", *words)
    assert done.code == 0, done.err
    return read_output(folder / "out")


@torch.inference_mode()
def made_by_torch(checkpoint: Path, picture: Image.Image, hidden: Any, unit: int) -> Any:
    """The whole journey of one picture with the Hub's own processor and model: (32, 32, 3)."""
    processor = AutoImageProcessor.from_pretrained(checkpoint, backend="pil")
    values = processor(picture, return_tensors="pt")["pixel_values"]
    if "vit_mae" in checkpoint.name:
        model: Any = ViTMAEForPreTraining.from_pretrained(checkpoint).eval()
        noise = torch.tensor(hidden + np.arange(len(hidden)) / len(hidden), dtype=torch.float32)[None]
        model.config.mask_ratio = 1 - (len(hidden) - hidden.sum() + 0.5) / len(hidden)
        patches = model.patchify(values)
        made = model(pixel_values=values, noise=noise).logits
        made = made * (patches.var(dim=-1, keepdim=True) + 1e-6) ** 0.5 + patches.mean(dim=-1, keepdim=True)
        made = model.unpatchify(made)
    else:
        model = AutoModelForMaskedImageModeling.from_pretrained(checkpoint).eval()
        inner = unit // model.config.patch_size
        grid = hidden.reshape(SIDE // unit, -1).repeat(inner, 0).repeat(inner, 1)
        made = model(pixel_values=values, bool_masked_pos=torch.tensor(grid.ravel()[None])).reconstruction
    levels = np.clip(np.rint((made[0].numpy() * 0.5 + 0.5) * 255), 0, 255).transpose(1, 2, 0)
    seen = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    anew = hidden.reshape(SIDE // unit, -1).repeat(unit, 0).repeat(unit, 1)[..., None]
    return np.where(anew, levels, seen)


@pytest.mark.parametrize("name", MASKED)
def test_pictures_are_those_that_pytorch_makes_of_the_same_mask(
    name: str, picture_model: PictureModel, tmp_path: Path
) -> None:
    checkpoint, bundle = picture_model(name)
    pictures = [scene(seed) for seed in range(5)]
    output = run_masked(bundle, {"image": [png(picture) for picture in pictures]}, tmp_path, "--keep-mask", "--seed", 3)
    unit, hidden_count = {"swin": (4, 39)}.get(name, (8, 12 if name == "vit_mae" else 10))
    units = (SIDE // unit) ** 2
    for row, picture in enumerate(pictures):
        hidden = random_patches(3, png(picture), row, units, hidden_count)
        found, masked = (pixels(output[column][row].as_py()) for column in ("generated_image", "masked_image"))
        wanted = made_by_torch(checkpoint, picture, hidden, unit)
        assert np.abs(found - wanted).max() <= 1
        anew = hidden.reshape(SIDE // unit, -1).repeat(unit, 0).repeat(unit, 1)
        assert (masked[anew] == 128).all()
        assert (masked[~anew] == found[~anew]).all()


@pytest.mark.parametrize("name", MASKED)
def test_nothing_under_a_mask_has_a_say_in_what_is_made_there(
    name: str, picture_model: PictureModel, tmp_path: Path
) -> None:
    one = np.asarray(scene(1, (SIDE, SIDE)))
    painted = np.zeros((SIDE, SIDE, 3), np.uint8)
    painted[8:24, 8:32] = 1
    other = np.where(painted > 0, 255 - one, one)
    table = {"image": [png(one), png(other)], "m": [png(painted)] * 2}
    output = run_masked(picture_model(name)[1], table, tmp_path, "--mask-column", "m")
    first, second = (pixels(cell.as_py()) for cell in output["generated_image"])
    assert (first == second).all()
    assert (first == one)[painted == 0].all()
    assert (first != one)[painted > 0].any()


def test_a_mask_of_fractions_paints_all_but_black() -> None:
    levels = np.array([[0, 0.25, 1, 200]], np.float32)
    assert to_paint(Image.fromarray(levels)).tolist() == [[0, 1, 1, 1]]


def test_a_mask_is_an_image_or_a_list_and_a_bad_one_is_its_rows_error(
    picture_model: PictureModel, tmp_path: Path
) -> None:
    bundle = picture_model("vit")[1]
    picture = png(scene(0))
    painted = np.zeros((4, 4), np.uint8)
    painted[0, 3] = 9
    listed = [False, False, False, True] + 12 * [False]
    by_image = run_masked(
        bundle, {"image": [picture] * 3, "m": pa.array([png(painted), None, b"junk"])}, tmp_path, "--mask-column", "m"
    )
    faint = Image.fromarray((painted > 0).astype(np.uint16))  # level 1 of 65,535
    by_label = run_masked(bundle, {"image": [picture], "m": [png(faint)]}, tmp_path, "--mask-column", "m")
    by_list = run_masked(
        bundle, {"image": [picture] * 3, "m": [listed, None, [True] * 3]}, tmp_path, "--mask-column", "m"
    )
    assert by_image["generated_image"][0] == by_list["generated_image"][0] == by_label["generated_image"][0]
    assert by_image["error"].to_pylist()[1] == by_list["error"].to_pylist()[1] == "bad_mask: the mask is null"
    assert by_image["error"][2].as_py().startswith("bad_mask: undecodable")
    assert by_list["error"][2].as_py() == "bad_mask: the list has 3 entries, the model hides patches of 16"
    assert by_image["generated_image"].null_count == by_list["generated_image"].null_count == 2


def test_at_the_original_size_only_what_is_painted_changes(picture_model: PictureModel, tmp_path: Path) -> None:
    picture = scene(2, (301, 200))
    painted = np.zeros((200, 301), np.uint8)
    painted[70:110, 100:200] = 255
    output = run_masked(
        picture_model("vit_mae")[1], {"image": [png(picture)], "m": [png(painted)]}, tmp_path,
        "--mask-column", "m", "--original-size",
    )  # fmt: skip
    found, before = pixels(output["generated_image"][0].as_py()), np.asarray(picture)
    assert found.shape == before.shape
    assert (found == before)[painted == 0].all()
    assert (found != before)[painted > 0].mean() > 0.9


def test_nothing_hidden_is_the_picture_itself_and_all_hidden_is_all_made(
    picture_model: PictureModel, tmp_path: Path
) -> None:
    picture = scene(3)
    for name in ("vit", "vit_mae"):
        bundle = picture_model(name)[1]
        table = {"image": [png(picture)] * 2, "m": [[0] * 16, [1] * 16]}
        output = run_masked(bundle, table, tmp_path, "--mask-column", "m")
        assert output["error"].null_count == 2
        resized = np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        assert (pixels(output["generated_image"][0].as_py()) == resized).all()
        assert (pixels(output["generated_image"][1].as_py()) != resized).mean() > 0.9


@pytest.mark.parametrize("name", ["vit_mae", "swin2sr"])
def test_no_rows_and_no_good_rows_are_outputs_too(name: str, picture_model: PictureModel, tmp_path: Path) -> None:
    for cells in ([], [None, b"junk"]):
        pq.write_table(pa.table({"image": pa.array(cells, pa.binary())}), tmp_path / "in.parquet")
        words = ["-m", picture_model(name)[1], "-o", tmp_path / "out", "--contact-sheet", 3, "--overwrite"]
        done = run_tfbatch("run", tmp_path / "in.parquet", *words)
        assert done.code == 0, done.err
        output = read_output(tmp_path / "out")
        assert output["error"].null_count == 0
        assert output["generated_image"].null_count == output.num_rows == len(cells)


def test_a_mask_comes_from_seed_content_and_row_alone() -> None:
    assert np.flatnonzero(random_patches(0, b"picture", 7, 16, 4)).tolist() == [0, 1, 4, 7]  # this, for ever
    masks = [random_patches(seed, data, row, 196, 98) for seed in (0, 1) for data in (b"a", b"b") for row in (0, 1)]
    assert [int(mask.sum()) for mask in masks] == [98] * 8
    assert len({mask.tobytes() for mask in masks}) == 8


def test_a_list_marks_patches_and_paint_marks_those_it_touches() -> None:
    assert listed_patches([0, 2, True, False], 4).tolist() == [False, True, True, False]
    with pytest.raises(UnfitPicture, match="5 entries"):
        listed_patches([0] * 5, 4)
    with pytest.raises(UnfitPicture, match="bad_mask: entry 2 of the list is null"):
        listed_patches([0, 1, None, None], 4)
    painted = np.zeros((4, 6), bool)
    painted[1, 2] = painted[3, 5] = True
    assert touched_patches(painted, 2).tolist() == [False, True, False, False, False, True]


def test_statistics_spread_from_visible_neighbours_inwards() -> None:
    values = np.zeros((3, 5, 2), np.float32)
    values[:, 0] = (2, 8)
    values[:, 1:] = 99
    hidden = np.ones((3, 5), bool)
    hidden[:, 0] = False
    assert (spread(values, hidden) == np.array([2, 8], np.float32)).all()
    assert (spread(values, np.ones((3, 5), bool)) == np.array([0, 1], np.float32)).all()
    assert (values[:, 1:] == 99).all()


@pytest.mark.parametrize("name", MASKED)
def test_batches_and_threads_change_no_picture(name: str, picture_model: PictureModel, tmp_path: Path) -> None:
    """To one grey level on a thousandth of the pixels, which is what rounding in kernels may do."""
    table = {"image": [png(scene(seed % 30)) for seed in range(40)]}
    settings = [("--threads", 1), ("--threads", 2), ("--batch-tokens", 1), ("--batch-tokens", 100_000)]
    outputs = [run_masked(picture_model(name)[1], table, tmp_path, *words) for words in settings]
    found = [np.array([pixels(cell.as_py()) for cell in output["generated_image"]]) for output in outputs]
    assert (found[0] == found[1]).all()
    for other in found[2:]:
        assert np.abs(found[0] - other).max() <= 1
        assert (found[0] != other).mean() <= 0.001
