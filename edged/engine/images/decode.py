"""Decode with Pillow within limits known before; make upright RGB of whatever it was; write PNG again."""

from __future__ import annotations

import io
import time
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edged.engine.images.lean import Damaged, Lean, read_lean
from edged.errors import DeadlineExceeded, RequestError, TooLarge

MIB = 2**20
MAX_SIDE = 65_535

# EXIF 2.32, 4.6.4 A: what must be done to an image so that it stands upright, by the value of its orientation tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may take: pixels, bytes of memory at the peak of decoding it, and seconds.

    The default memory lets PNG and JPEG have all of the 16 Mpx, and WebP, whose decoder holds five copies, 7.5.
    """

    max_pixels: int = 16 * MIB
    max_bytes: int = 144 * MIB
    decode_s: float = 10.0


def decode_image(
    data: bytes,
    limits: ImageLimits = ImageLimits(),
    *,
    deadline_s: float | None = None,
    at_least: tuple[int, int] | None = None,
) -> Image.Image:
    """The picture in `data` as upright RGB.

    `deadline_s` is CLOCK_MONOTONIC, as on the private wire. `at_least` (width, height): the caller will shrink it to
    this size, so a JPEG may be decoded at a half, a quarter or an eighth of its own, in as much less time and memory.

    Raises InvalidRequest (no whole image of a known format), TooLarge (pixels or memory, judged from the header),
    DeadlineExceeded.
    """
    return decode_lean(read_lean(data), limits, deadline_s=deadline_s, at_least=at_least)


def decode_lean(
    lean: Lean,
    limits: ImageLimits = ImageLimits(),
    *,
    deadline_s: float | None = None,
    at_least: tuple[int, int] | None = None,
    keep_grey: bool = False,
) -> Image.Image:
    """As `decode_image`, for who has read the header before and knows what it will cost.

    `keep_grey`: who wants grey in the end gets an 8-bit grey picture (mode "L") as it is, not by way of RGB.
    """
    check_size(lean, limits)
    ends_s = time.monotonic() + limits.decode_s
    source = _TimedBytes(lean.data, min(ends_s, deadline_s or ends_s))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about oddities of the file, which are not ours to mend
            opened = Image.open(source, formats=[lean.format])
            if opened.size != (lean.width, lean.height):
                raise Damaged("its headers contradict each other")
            if at_least is not None:
                side = max(at_least)  # it may still have to be turned
                opened.draft(None, (side, side))
            opened.load()
            is_grey = opened.mode == "L" and "transparency" not in opened.info
            picture = opened if keep_grey and is_grey else _rgb(opened)
            if picture is not opened:
                opened.close()  # its memory counts until here
            return _upright(picture, lean.orientation)
    except RequestError:
        raise
    except MemoryError as error:
        raise TooLarge("image: there is no memory to decode it now; send a smaller one") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more for bad data
        raise Damaged("it is damaged or cut short") from error


def to_png(image: Image.Image) -> bytes:
    """An RGB image as PNG bytes, compressed lightly: the reader is another library in this process."""
    encoded = io.BytesIO()
    image.save(encoded, "PNG", compress_level=1)
    return encoded.getvalue()


def check_size(lean: Lean, limits: ImageLimits) -> None:
    """Judge by the header alone. Raises TooLarge."""
    what = f"image: {lean.width} x {lean.height}"
    if lean.pixels > limits.max_pixels or max(lean.width, lean.height) > MAX_SIDE:
        raise TooLarge(f"{what} is more than the {limits.max_pixels / 1e6:.1f} million pixels allowed; scale it down")
    most_pixels = limits.max_bytes // lean.bytes_per_pixel
    if lean.pixels > most_pixels:
        raise TooLarge(
            f"{what} as {lean.format} takes more than the {limits.max_bytes // MIB} MiB allowed for decoding; "
            f"send at most {most_pixels / 1e6:.1f} million pixels, or JPEG"
        )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        flat = Image.new("RGB", image.size, "white")
        flat.paste(image, mask=image)  # the mask is its alpha, read in place
        return flat
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


class _TimedBytes(io.BytesIO):
    """A file in memory that can be read until `ends_s`. Pillow decodes at most 64 KiB between two reads."""

    def __init__(self, data: bytes, ends_s: float) -> None:
        super().__init__(data)
        self._ends_s = ends_s

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._ends_s:
            raise DeadlineExceeded("image: decoding it took too long; send a smaller one")
        return super().read(size)
