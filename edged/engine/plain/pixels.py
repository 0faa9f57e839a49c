"""Upright images to the tensor a model wants, as its manifest says; and where the model's pixels came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edged.store.plain_fields import ImageInput

Array = NDArray[Any]
_RESAMPLE = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_GAP = 3.0  # a large image is first reduced to this many times what is wanted: as good to the eye, and much faster


@dataclass(frozen=True, slots=True)
class Placement:
    """Model pixel (x, y) shows image pixel ((x - left) / across, (y - top) / down) of an image of `size`."""

    size: tuple[int, int]
    across: float
    down: float
    left: float = 0.0
    top: float = 0.0

    def to_image(self, boxes: Array) -> Array:
        """Boxes [n, 4] (x0, y0, x1, y1) in model pixels, in image pixels and cut at its edges."""
        moved = boxes.copy()
        for axis, (start, factor, most) in enumerate(
            ((self.left, self.across, self.size[0]), (self.top, self.down, self.size[1]))
        ):
            moved[:, axis::2] = np.clip((boxes[:, axis::2] - start) / factor, 0, most)
        return moved


def empty_image(spec: ImageInput) -> Image.Image:
    """A black image of the size the model wants."""
    return Image.new("RGB", spec.size)


def to_pixels(image: Image.Image, spec: ImageInput) -> tuple[Array, Placement]:
    """What the model shall see of an RGB or grey image, bytes [height, width, channels], and where that lies in it."""
    if spec.colour == "grey" and image.mode != "L":
        image = image.convert("L")
    fitted, placement = _fit(image, spec)
    pixels = np.frombuffer(fitted.tobytes(), np.uint8).reshape(fitted.height, fitted.width, -1)
    if spec.colour == "bgr":
        pixels = pixels[:, :, ::-1]
    if spec.invert == "always" or (spec.invert == "if_background_is_light" and _is_light(pixels)):
        pixels = 255 - pixels
    return pixels, placement


def to_tensor(rows: Sequence[Array], spec: ImageInput, dtype: str) -> Array:
    """The model's image input for the pixels of some images together."""
    pixels = np.stack(rows)
    if dtype != "uint8":
        values = pixels.astype(np.float32)
        values *= np.float32(spec.scale)
        if any(spec.mean):
            values -= np.array(spec.mean, np.float32)
        if any(each != 1 for each in spec.std):
            values /= np.array(spec.std, np.float32)
        pixels = values.astype(dtype, copy=False)
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if spec.layout == "nchw" else pixels


def _is_light(pixels: Array) -> bool:
    """More than half of them are."""
    return int(np.count_nonzero(pixels > 127)) * 2 > pixels.size


def _fit(image: Image.Image, spec: ImageInput) -> tuple[Image.Image, Placement]:
    width, height = spec.size
    across, down = width / image.width, height / image.height
    if spec.fit == "stretch":
        return _resized(image, spec, spec.size), Placement(image.size, across, down)
    if spec.fit == "crop":
        factor = max(across, down) / spec.crop_share
        left, top = (image.width - width / factor) / 2, (image.height - height / factor) / 2
        box = (left, top, left + width / factor, top + height / factor)
        placement = Placement(image.size, factor, factor, -left * factor, -top * factor)
        return _resized(image, spec, spec.size, box), placement
    factor = min(across, down)
    inner = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    grey = spec.pad_value
    whole = Image.new(image.mode, spec.size, grey if image.mode == "L" else (grey, grey, grey))
    whole.paste(_resized(image, spec, inner), (left, top))
    return whole, Placement(image.size, inner[0] / image.width, inner[1] / image.height, left, top)


def _resized(
    image: Image.Image, spec: ImageInput, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    if image.size == size and box in (None, (0, 0, *size)):
        return image
    gap = None if spec.resample in ("nearest", "box") else _GAP
    return image.resize(size, _RESAMPLE[spec.resample], box, gap)
