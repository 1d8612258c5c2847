"""A picture of pictures: the first rows of a run, to look at."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfbatch.pictures.images import Pixels

SIDE = 240  # of a panel, in pixels
SEARCHED = 1500  # pixels a side of a large picture in which a detail is sought
GAP, LINE, TEXT = 12, 22, 15
PAPER, INK, FAINT = (250, 250, 248), (30, 30, 30), (120, 120, 120)


class Panel(NamedTuple):
    """A picture (H, W, 3) with what it shows."""

    label: str
    pixels: Pixels


class ContactSheet:
    """Gathers the panels of at most `limit` rows, and draws them with a line for each row.

    `rows` are its lines: what each is called, and its pictures with what they show.
    """

    def __init__(self, title: str, limit: int) -> None:
        self._title = title
        self._limit = limit
        self.rows: list[tuple[str, list[tuple[str, Image.Image]]]] = []

    @property
    def is_complete(self) -> bool:
        return len(self.rows) >= self._limit

    def add(self, name: str, panels: list[Panel]) -> None:
        """Keep a row, its pictures no larger than they will be drawn."""
        self.rows.append((name, [(panel.label, fit(panel.pixels)) for panel in panels]))

    def save(self, path: Path) -> None:
        """Draw the sheet into a file."""
        self._draw().save(path, "PNG")

    def _draw(self) -> Image.Image:
        across = max((len(pictures) for _, pictures in self.rows), default=1)
        heights = [2 * LINE + GAP + max(picture.height for _, picture in pictures) for _, pictures in self.rows]
        width = GAP + across * (SIDE + GAP)
        sheet = Image.new("RGB", (width, GAP + 2 * LINE + sum(heights)), PAPER)
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
        draw.text((GAP, GAP), shortened(self._title, width - 2 * GAP, font), INK, font)
        top = GAP + 2 * LINE
        for (name, pictures), height in zip(self.rows, heights, strict=True):
            draw.text((GAP, top), name, FAINT, font)
            for place, (label, picture) in enumerate(pictures):
                left = GAP + place * (SIDE + GAP)
                sheet.paste(picture, (left, top + LINE))
                draw.text((left, top + LINE + picture.height + 3), label, INK, font)
            top += height
        return sheet


def fit(pixels: Pixels) -> Image.Image:
    """A picture as large as a panel: small ones by whole pixels, so that what is a pixel can be seen."""
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    if longest <= SIDE:
        times = SIDE // longest
        return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    width, height = (max(1, round(side * SIDE / longest)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def liveliest(pixels: Pixels, side: int) -> tuple[slice, slice]:
    """The square of a picture (H, W, 3) with the most contrast from pixel to pixel, or all of it
    where it is smaller: the place to look at. Of a large picture only the middle is searched."""
    middle = [(max((length - SEARCHED) // 2, 0), min(length, SEARCHED)) for length in pixels.shape[:2]]
    (above, height), (before, width) = middle
    searched = pixels[above : above + height, before : before + width, 1].astype(np.int16)
    contrast = np.abs(np.diff(searched, axis=1)).clip(0, 60)
    down, right = min(side, height), min(side, width)
    places = [
        (top, left)
        for top in sorted({*range(0, height - down, max(down // 2, 1)), height - down})
        for left in sorted({*range(0, width - right, max(right // 2, 1)), width - right})
    ]
    top, left = max(places, key=lambda place: contrast[place[0] : place[0] + down, place[1] : place[1] + right].sum())
    return slice(above + top, above + top + down), slice(before + left, before + left + right)


def shortened(text: str, width: int, font: Any) -> str:
    """A text as far as it fits, in pixels."""
    while font.getlength(text) > width and len(text) > 1:
        text = text[:-2] + "…"
    return text
