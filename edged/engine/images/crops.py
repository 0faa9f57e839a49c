"""From a picture to what a phi3v vision graph reads, and what that costs in tokens, known from its size alone.

The arithmetic of Phi-3-vision's HD transform: the picture is scaled so that at most `most_crops` squares of 336 pixels
cover it, filled up with white, cut into those squares, and seen once more as a whole, small. Sources: the model's own
processing_phi3_v.py, and Phi3ImageTransform in onnxruntime-extensions, whose pixels these are within rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 336
CROP_TOKENS = 144  # of one square: 24 × 24 patches, joined by fours
ROW_TOKENS = 12  # a line break ends each row of a square's tokens
MOST_CROPS = 16
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)  # CLIP's
STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Grid:
    """How many squares a picture is cut into."""

    rows: int
    columns: int

    @property
    def crops(self) -> int:
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Image tokens: all squares and the whole picture, line breaks, and the sign between the two views."""
        return (self.crops + 1) * CROP_TOKENS + 1 + (self.rows + 1) * ROW_TOKENS


@dataclass(frozen=True, slots=True)
class Fit:
    """The scaled picture before it is filled up to whole squares (pixels), and the squares."""

    width: int
    height: int
    grid: Grid


def fit(width: int, height: int, most_crops: int) -> Fit:
    """How a picture of that size (pixels, ≥ 1) is scaled into at most `most_crops` squares (1–16)."""
    ratio = max(width, height) / min(width, height)
    scale = 1
    while (scale + 1) * math.ceil((scale + 1) / ratio) <= most_crops:
        scale += 1
    long, short = scale * SIDE, max(1, int(scale * SIDE / ratio))
    lines = math.ceil(short / SIDE)
    if width < height:
        return Fit(short, long, Grid(scale, lines))
    return Fit(long, short, Grid(lines, scale))


def scaled(image: Image.Image, most_crops: int) -> Image.Image:
    """An RGB picture scaled and filled up with white to whole squares."""
    wanted = fit(image.width, image.height, most_crops)
    small = image.resize((wanted.width, wanted.height), Image.Resampling.BILINEAR)
    whole = Image.new("RGB", (wanted.grid.columns * SIDE, wanted.grid.rows * SIDE), (255, 255, 255))
    whole.paste(small, ((whole.width - small.width) // 2, (whole.height - small.height) // 2))
    return whole


def blank() -> Image.Image:
    """A white picture of one square."""
    return Image.new("RGB", (SIDE, SIDE), "white")


def pixel_values(whole: Image.Image) -> NDArray[np.float32]:
    """Pixels `[1 + squares, 3, 336, 336]` of a `scaled` picture, normalised as CLIP wants them; small view first."""
    rows, columns = whole.height // SIDE, whole.width // SIDE
    pixels: NDArray[np.float32] = ((np.asarray(whole, dtype=np.float32) / 255 - MEAN) / STD).astype(np.float32)
    squares = pixels.reshape(rows, SIDE, columns, SIDE, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(np.concatenate([_small(pixels)[None], squares]))


def _small(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    planes = [Image.fromarray(np.ascontiguousarray(pixels[:, :, channel])) for channel in range(3)]
    if planes[0].size != (SIDE, SIDE):
        planes = [plane.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in planes])
