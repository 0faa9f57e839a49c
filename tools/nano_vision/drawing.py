"""Draws a scene: what a cheap camera on a machine would see of it. Needs Pillow and NumPy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from nano_vision.scenes import COLOURS, Scene, Thing

BACKGROUNDS = ((245, 245, 245), (225, 228, 232), (250, 246, 235), (205, 215, 225), (232, 240, 228), (200, 200, 198))
DISPLAY_INKS = ((255, 60, 40), (60, 255, 90), (90, 190, 255), (255, 190, 40))
# Segments of a digit in a cell of width 1 and height 2, by the usual letters
_SEGMENTS = {
    "a": ((0, 0), (1, 0)), "b": ((1, 0), (1, 1)), "c": ((1, 1), (1, 2)), "d": ((0, 2), (1, 2)), "e": ((0, 1), (0, 2)),
    "f": ((0, 0), (0, 1)), "g": ((0, 1), (1, 1)),
}  # fmt: skip
_LIT = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


@dataclass(frozen=True)
class Look:
    """How the camera stands and what the light is like: the same for both pictures of a pair."""

    size: tuple[int, int]
    background: tuple[int, int, int]
    slope: tuple[float, float]
    noise: float
    blur: float
    ink: tuple[int, int, int]
    shift: tuple[float, float]
    scale: float
    seed: int


def some_look(rng: Random) -> Look:
    """A look; most pictures are square, the others up to half as wide or high."""
    side = rng.randint(224, 420)
    squeeze = 1.0 if rng.random() < 0.75 else rng.uniform(0.6, 1.0)
    wide = rng.random() < 0.5
    return Look(
        size=(side, round(side * squeeze)) if wide else (round(side * squeeze), side),
        background=rng.choice(BACKGROUNDS),
        slope=(rng.uniform(-18, 18), rng.uniform(-18, 18)),
        noise=rng.uniform(0, 6),
        blur=rng.choice((0.0, 0.0, rng.uniform(0.3, 1.0))),
        ink=rng.choice(DISPLAY_INKS),
        shift=(rng.uniform(-0.02, 0.02), rng.uniform(-0.02, 0.02)),
        scale=rng.uniform(0.85, 1.1),
        seed=rng.getrandbits(32),
    )


def draw(scene: Scene, look: Look, again: int = 0) -> Image.Image:
    """The picture. `again` numbers the exposures under one look: noise and the last pixel of position differ."""
    rng = Random(look.seed + 7919 * again)
    still = Random(look.seed)  # what belongs to the place, not to the exposure
    width, height = look.size
    image = Image.new("RGB", look.size, look.background)
    pen = ImageDraw.Draw(image)
    offset = (look.shift[0] + rng.uniform(-0.004, 0.004), look.shift[1] + rng.uniform(-0.004, 0.004))
    jitters = [(still.uniform(-0.045, 0.045), still.uniform(-0.045, 0.045), still.uniform(0.8, 1.1)) for _ in range(9)]
    unit = min(width, height)
    for thing in scene.things:
        dx, dy, size = jitters[thing.place]
        x = ((thing.place % 3 + 0.5) / 3 + dx + offset[0]) * width
        y = ((thing.place // 3 + 0.5) / 3 + dy + offset[1]) * height
        _shape(pen, thing, x, y, 0.12 * unit * size * look.scale, look.background, rng)
    if scene.display is not None:
        _display(pen, scene.display, look, (0.5 + offset[0]) * width, (0.5 + offset[1]) * height, unit)
    if scene.gauge is not None:
        _gauge(pen, scene.gauge, look, (0.5 + offset[0]) * width, (0.5 + offset[1]) * height, unit, rng)
    return _exposed(image, look, rng)


def _shape(
    pen: ImageDraw.ImageDraw, thing: Thing, x: float, y: float, r: float, background: tuple[int, ...], rng: Random
) -> None:
    colour = tuple(max(0, min(255, level + rng.randint(-12, 12))) for level in COLOURS[thing.colour])
    box = (x - r, y - r, x + r, y + r)
    if thing.shape == "circle":
        pen.ellipse(box, fill=colour)
    elif thing.shape == "ring":
        pen.ellipse(box, outline=colour, width=max(3, round(r * 0.36)))
    elif thing.shape == "square":
        pen.rectangle((x - 0.88 * r, y - 0.88 * r, x + 0.88 * r, y + 0.88 * r), fill=colour)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r), (x + 1.05 * r, y + 0.85 * r), (x - 1.05 * r, y + 0.85 * r)], fill=colour)
    else:
        t = 0.34 * r
        pen.rectangle((x - t, y - r, x + t, y + r), fill=colour)
        pen.rectangle((x - r, y - t, x + r, y + t), fill=colour)


def _display(pen: ImageDraw.ImageDraw, text: str, look: Look, x: float, y: float, unit: float) -> None:
    digits = [mark for mark in text if mark != "."]
    cell = 0.105 * unit * look.scale
    pitch = cell * 1.75
    width, height = pitch * max(len(digits), 2), cell * 2
    left, top = x - pitch * len(digits) / 2, y - height / 2
    margin = 0.55 * cell
    half = max(width, pitch * len(digits)) / 2 + margin
    pen.rounded_rectangle(
        (x - half, top - margin, x + half, top + height + margin), radius=0.3 * cell, fill=(22, 24, 26)
    )
    stroke = max(3, round(cell * 0.27))
    for number, digit in enumerate(digits):
        ox = left + pitch * number + (pitch - cell) / 2
        for letter in _LIT[int(digit)]:
            (ax, ay), (bx, by) = _SEGMENTS[letter]
            pen.line((ox + ax * cell, top + ay * cell, ox + bx * cell, top + by * cell), fill=look.ink, width=stroke)
    if "." in text:
        dx = left + pitch * text.index(".")
        pen.ellipse(
            (dx - stroke * 0.75, top + height - stroke, dx + stroke * 0.75, top + height + stroke / 2), look.ink
        )


def _gauge(pen: ImageDraw.ImageDraw, value: int, look: Look, x: float, y: float, unit: float, rng: Random) -> None:
    r = 0.23 * unit * look.scale
    pen.ellipse((x - r, y - r, x + r, y + r), fill=(252, 252, 250), outline=(60, 60, 64), width=max(3, round(r * 0.07)))
    for tick in range(11):
        ax, ay = _on_dial(10 * tick)
        inner = 0.72 if tick % 5 == 0 else 0.8
        pen.line((x + ax * r * inner, y + ay * r * inner, x + ax * r * 0.9, y + ay * r * 0.9), (60, 60, 64), width=2)
    ax, ay = _on_dial(value + rng.uniform(-1.5, 1.5))
    needle = (200, 30, 30) if look.seed % 2 else (20, 20, 24)
    pen.line(
        (x - ax * r * 0.15, y - ay * r * 0.15, x + ax * r * 0.78, y + ay * r * 0.78), needle, max(3, round(r / 14))
    )
    pen.ellipse((x - r / 10, y - r / 10, x + r / 10, y + r / 10), fill=needle)


def _on_dial(value: float) -> tuple[float, float]:
    """Direction of the needle: 0 stands lower left, 50 up, 100 lower right."""
    angle = math.radians(-225 + 2.7 * value)
    return math.cos(angle), math.sin(angle)


def _exposed(image: Image.Image, look: Look, rng: Random) -> Image.Image:
    if look.blur:
        image = image.filter(ImageFilter.GaussianBlur(look.blur))
    width, height = look.size
    light = np.linspace(-look.slope[0], look.slope[0], width, dtype=np.float32)[None, :, None]
    light = light + np.linspace(-look.slope[1], look.slope[1], height, dtype=np.float32)[:, None, None]
    grain = np.random.default_rng(rng.getrandbits(32)).standard_normal((height, width, 1), dtype=np.float32)
    pixels = np.asarray(image, dtype=np.float32) + light + grain * look.noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
