"""What a header says, and the file without everything that is not needed to draw it. Pure bytes; decodes nothing.

Metadata multiplies (an Exif directory may name the same bytes 65,535 times, a few KB of text unpack to 50 MB) and none
of it is needed: what is handed on holds the picture alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.errors import InvalidRequest

MAX_PARTS = 65_536  # chunks or segments of one file; a camera writes some dozens, a PNG writer one per 8 KiB


@dataclass(frozen=True, slots=True)
class Lean:
    """A file reduced to its picture. `bytes_per_pixel` is what decoding it to upright RGB takes at its peak.

    `format` is Pillow's name; `orientation` is EXIF's, 1 to 8 (1: upright).
    """

    format: str
    width: int
    height: int
    orientation: int
    bytes_per_pixel: int
    data: bytes

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def decode_bytes(self) -> int:
        """Memory that decoding takes at its peak, beside the file itself."""
        return self.pixels * self.bytes_per_pixel


class Damaged(InvalidRequest):
    """The bytes are no whole image of a known format."""

    def __init__(self, what: str) -> None:
        super().__init__(f"image: {what}; send a whole PNG, JPEG or WebP file")


def read_lean(data: bytes) -> Lean:
    """Recognise the format by its first bytes and reduce it. Raises InvalidRequest (Damaged)."""
    from edged.engine.images.jpeg import lean_jpeg
    from edged.engine.images.png import SIGNATURE, lean_png
    from edged.engine.images.webp import lean_webp

    if data.startswith(SIGNATURE):
        lean = lean_png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        lean = lean_jpeg(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        lean = lean_webp(data)
    else:
        raise Damaged("these bytes are not PNG, JPEG or WebP" if data else "the attachment is empty")
    if lean.width < 1 or lean.height < 1:
        raise Damaged("its header gives it no size")
    return lean
