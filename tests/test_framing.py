"""What a model sees of a picture has the very pixels of the Hub's processor."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from photographs import SMOOTH, encoded, grey_levels_off, scene, turned
from PIL import ExifTags, Image
from tfbatch.bundle import load_bundle
from tfbatch.errors import BadConfiguration
from tfbatch.pictures.decoders import DECODERS
from tfbatch.pictures.framing import central_box, resized_size
from tfbatch.pictures.images import UnfitPicture
from tfbatch.pictures.pixels import ImageProcessor
from tfbatch.pictures.views import UNSTEADY, View, render
from tfbatch_export.checkpoints.preprocessor import check_pixels, check_steps, copy_preprocessor, read_preprocessor
from transformers import AutoImageProcessor
from transformers.image_utils import load_image
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil
from vision import DINOV3_PROCESSOR, dinov3_pixels

TALL = [(400, 900), (299, 714)]  # more than twice as tall as wide
SHAPES = [(48, 48), (60, 48), (61, 97), (97, 61), (300, 7), (7, 300), (1, 1), (333, 500), (641, 479), (2, 3), *TALL]
EDGE = {"size": {"shortest_edge": 48}, "crop_size": {"height": 42, "width": 42}}


@pytest.mark.parametrize("edge", [42, 48, 51])
@pytest.mark.parametrize("resample", [Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_a_picture_resized_by_its_shorter_edge_has_the_hubs_pixels(
    edge: int, resample: int, picture: Callable[..., bytes], tmp_path: Path
) -> None:
    BitImageProcessorPil(**EDGE | {"size": {"shortest_edge": edge}}, resample=resample).save_pretrained(tmp_path)
    ours = ImageProcessor(read_preprocessor(tmp_path), is_exact=True)
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    for shape in SHAPES:
        data = picture(shape)
        seen = DECODERS.render(pa.py_buffer(data), ours.view)
        expected = theirs(Image.open(io.BytesIO(data)), return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(ours.normalise([seen]), expected, atol=1e-6)


@pytest.mark.parametrize("edge", [42, 48, 51])
@pytest.mark.parametrize("resample", [*UNSTEADY, *SMOOTH])
def test_what_is_cropped_away_is_not_computed_and_hardly_a_value_differs(edge: int, resample: int) -> None:
    for shape in SHAPES:
        data = encoded(scene((shape[0] * 8, shape[1] * 8)).resize(shape), "PNG")
        off = grey_levels_off(data, View(size=edge, resample=resample, crop=(42, 42)))
        assert off.shape == (42, 42, 3)
        assert off.max() <= (0 if resample in UNSTEADY else 2)
        assert off.mean() <= (0.05 if edge == 51 else 0.005)  # the larger the more levels lie in the middle of two


def test_no_more_than_the_middle_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, resize = [], Image.Image.resize

    def watched(picture: Image.Image, size: tuple[int, int], *more: Any) -> Image.Image:
        sizes.append(size)
        return resize(picture, size, *more)

    monkeypatch.setattr(Image.Image, "resize", watched)
    data = encoded(Image.new("RGB", (500, 375)), "PNG")
    for is_exact in (False, True):
        render(data, View(size=256, resample=Image.Resampling.BICUBIC, crop=(224, 224), is_exact=is_exact))
    assert sizes == [(224, 337), (224, 224), (341, 256)]


def test_pixels_in_boxes_are_exact() -> None:
    """Other pixels lie within it."""
    for shape in [(300, 225), (444, 219)]:
        data = encoded(scene((shape[0] * 8, shape[1] * 8)).resize(shape), "PNG")
        assert not grey_levels_off(data, View(size=256, resample=Image.Resampling.BOX, crop=(224, 224))).any()


@pytest.mark.parametrize("resample", SMOOTH)
def test_around_what_is_smaller_than_the_crop_it_is_black(resample: int) -> None:
    data = encoded(Image.new("RGB", (50, 40), "white"), "PNG")
    seen = np.asarray(render(data, View(size=(20, 30), resample=resample, crop=(24, 24))))
    assert not seen[:, :2].any()
    assert not seen[:, -2:].any()
    assert (seen[:, 2:-2] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_large_jpeg_is_scaled_towards_its_shorter_edge_and_hardly_differs(orientation: int) -> None:
    data = encoded(scene((1203, 877)), "JPEG", quality=90, exif=turned(orientation))
    view = View(size=40, resample=Image.Resampling.BICUBIC, crop=(32, 32))
    assert Image.open(io.BytesIO(data)).getexif().get(ExifTags.Base.Orientation) == orientation
    exact = View(**{**vars(view), "is_exact": True})
    off = np.abs(np.asarray(render(data, view), np.int64) - np.asarray(render(data, exact), np.int64))
    assert off.shape == (32, 32, 3)
    assert 0 < off.mean() < 0.5
    assert off.max() <= 8


def test_a_scaled_jpeg_keeps_the_size_that_the_whole_one_is_resized_to() -> None:
    for side in range(877, 885):
        data = encoded(scene((1203, side)), "JPEG")
        whole, scaled = (render(data, View(size=32, resample=2, is_exact=exact)).size for exact in (True, False))
        assert whole == scaled == resized_size((1203, side), 32)


def test_a_picture_that_would_grow_without_end_is_its_rows_error() -> None:
    with pytest.raises(UnfitPicture, match="too_large: resized to a shorter edge of 256"):
        render(encoded(Image.new("RGB", (1, 5000)), "PNG"), View(size=256, resample=3, crop=(224, 224)))


def test_the_longer_edge_is_rounded_down_and_the_middle_lies_half_a_pixel_up_and_left() -> None:
    assert resized_size((333, 500), 48) == (48, 72)
    assert resized_size((500, 333), 48) == (72, 48)
    assert resized_size((10, 11), 48) == (48, 52)
    assert central_box((52, 48), (42, 41)) == (5, 3, 47, 44)


def test_plain_sizes_are_cropped_to_their_middle_too() -> None:
    view = View(size=(40, 50), resample=2, crop=(31, 30), is_exact=True)
    assert not grey_levels_off(encoded(scene(), "PNG"), view).any()


@pytest.mark.parametrize("resample", SMOOTH)
def test_a_crop_of_what_does_not_keep_its_shape_has_the_very_pixels(resample: int) -> None:
    view = View(size=(256, 256), resample=resample, crop=(224, 224))
    for shape in [(300, 400), (240, 320), (200, 300), (400, 300), (500, 500), (720, 1280)]:
        data = encoded(scene((shape[0] * 2, shape[1] * 2)).resize(shape), "PNG")
        off = grey_levels_off(data, view)
        assert off.max() <= (2 if shape[0] == shape[1] else 0), shape


@pytest.mark.parametrize("on_white", [True, False])
def test_a_colour_that_is_transparent_is_white_where_the_processor_converts(on_white: bool, tmp_path: Path) -> None:
    BitImageProcessorPil(**EDGE, do_convert_rgb=on_white).save_pretrained(tmp_path)
    settings = read_preprocessor(tmp_path)
    check_pixels(tmp_path, settings)
    ours, theirs = ImageProcessor(settings, is_exact=True), AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    palette = scene((90, 70)).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    grey = scene((90, 70)).convert("L")
    layered = scene((90, 70)).convert("RGBA")
    layered.putalpha(grey)
    some = [
        (encoded(palette, "GIF", transparency=3), True),
        (encoded(palette, "PNG", transparency=3), True),
        (encoded(grey, "PNG", transparency=grey.getpixel((40, 30))), True),
        (encoded(layered.convert("RGB"), "PNG", transparency=layered.getpixel((40, 30))[:3]), True),
        (encoded(layered, "PNG"), False),
    ]
    for data, is_changed in some:
        seen = DECODERS.render(pa.py_buffer(data), ours.view)
        expected = theirs(load_image(Image.open(io.BytesIO(data))), return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(ours.normalise([seen]), expected, atol=1e-6)
        plain = DECODERS.render(pa.py_buffer(data), replace(ours.view, on_white=False))
        whole = Image.fromarray(DECODERS.render(pa.py_buffer(data), View(on_white=on_white)))
        assert np.array_equal(np.asarray(ours.fit(whole)), seen)  # as where the full picture is wanted
        assert np.array_equal(seen, plain) == (not (on_white and is_changed))


@pytest.mark.parametrize("is_exact", [True, False])
def test_pictures_are_resized_in_floats_where_the_hub_does_not_round(is_exact: bool, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(DINOV3_PROCESSOR)
    ours = ImageProcessor(read_preprocessor(tmp_path), is_exact=is_exact)
    shapes = [(61, 97), (97, 61), (32, 32), (7, 300), (1, 1), (640, 480)]
    pictures = [encoded(scene((width * 8, height * 8)).resize((width, height)), "PNG") for width, height in shapes]
    seen = [DECODERS.render(pa.py_buffer(data), ours.view) for data in pictures]
    found = ours.normalise(seen)
    expected = np.concatenate([dinov3_pixels(Image.open(io.BytesIO(data))).numpy() for data in pictures])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(np.modf(np.asarray(seen, np.float64))[0]).max() > 0.3  # levels are no whole numbers


def test_numbers_that_stand_for_several_are_spelled_out(tmp_path: Path) -> None:
    BitImageProcessorPil(**EDGE, image_mean=0.5, image_std=0.25).save_pretrained(tmp_path)
    settings = read_preprocessor(tmp_path)
    assert (settings["image_mean"], settings["image_std"]) == ([0.5] * 3, [0.25] * 3)
    check_pixels(tmp_path, settings)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "DINOv3ViTImageProcessorFast", "size": 32, "image_mean": 0.5, "do_normalize": false}'
    )
    settings = read_preprocessor(tmp_path)
    assert settings["size"] == {"height": 32, "width": 32}
    check_pixels(tmp_path, settings)
    for resample, reason in ((1, "resizes by lanczos; what is known"), (77, "which Pillow has not")):
        (tmp_path / "preprocessor_config.json").write_text(
            json.dumps({"image_processor_type": "DINOv3ViTImageProcessorFast", "size": 32, "resample": resample})
        )
        with pytest.raises(BadConfiguration, match=reason):
            check_pixels(tmp_path, read_preprocessor(tmp_path))


@pytest.mark.parametrize("side", [32, 224, 518])
def test_dinov3s_processor_is_accepted_in_every_size(side: int, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(DINOV3_PROCESSOR.replace("32", str(side)))
    settings = read_preprocessor(tmp_path)
    check_steps(tmp_path, settings, side, keeps_shape=True)
    check_pixels(tmp_path, settings)
    with pytest.raises(BadConfiguration, match="and does no rounding"):
        check_steps(tmp_path, settings, side, keeps_shape=False)


def refusal(folder: Path, processor: Any, *, side: int = 42, keeps_shape: bool = True) -> str:
    """Why a processor is refused."""
    processor.save_pretrained(folder)
    settings = copy_preprocessor(folder, folder)
    try:
        check_steps(folder, settings, side, keeps_shape=keeps_shape)
        check_pixels(folder, settings)
    except BadConfiguration as error:
        return str(error)
    raise AssertionError("it was not refused")


def test_processors_that_do_something_else_are_refused(tmp_path: Path) -> None:
    for processor, reason in (
        (BitImageProcessorPil(size={"shortest_edge": 48}, do_center_crop=False), "gives {'shortest_edge': 48}"),
        (BitImageProcessorPil(**EDGE | {"size": {"shortest_edge": 40}}), "resized to {'shortest_edge': 40}"),
        (BitImageProcessorPil(**EDGE, do_resize=False), "what can be run is a resize"),
        (ViTImageProcessorPil(size={"longest_edge": 48, "shortest_edge": 42}), "what can be run is a resize"),
        (LevitImageProcessorPil(**EDGE), "LevitImageProcessor gives other pixels than can be run"),
    ):
        assert reason in refusal(tmp_path, processor)
    assert "by the shorter edge" not in refusal(tmp_path, BitImageProcessorPil(**EDGE), keeps_shape=False)


def test_a_processor_for_torchvision_alone_is_refused_by_name(tmp_path: Path) -> None:
    settings = json.loads(DINOV3_PROCESSOR) | {"image_processor_type": "DepthProImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(BadConfiguration, match="no image processor DepthProImageProcessor that works with Pillow"):
        read_preprocessor(tmp_path)


def test_bundles_have_the_processors_own_words(image_bundle: Path, image_checkpoint: Path) -> None:
    saved = json.loads((image_checkpoint / "preprocessor_config.json").read_bytes())
    assert load_bundle(image_bundle).read_json("preprocessor_config.json") == saved
