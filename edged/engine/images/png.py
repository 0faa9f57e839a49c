"""PNG: the header, and the file without ancillary chunks. Layout: W3C PNG, third edition, 5 and 11."""

from __future__ import annotations

import struct
import zlib

from edged.engine.images.lean import MAX_PARTS, Damaged, Lean
from edged.engine.images.orientation import read_orientation

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6  # colour types


def lean_png(data: bytes) -> Lean:
    """Header and picture of a PNG. Of an animated one that is its default image. Raises Damaged."""
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise Damaged("this PNG has no header")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    kept, transparent, orientation, ended = [SIGNATURE], False, 1, False
    at, size = len(SIGNATURE), len(data)
    for _ in range(MAX_PARTS):
        if at + 12 > size:
            break
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > size:
            raise Damaged("this PNG is cut short")
        if name in NEEDED:
            chunk = data[at:end]
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise Damaged("this PNG is damaged: a checksum is wrong")
            kept.append(chunk)
            transparent |= name == b"tRNS"
        elif name == b"eXIf":
            orientation = read_orientation(data[at + 8 : end - 4])
        elif name[:1].isupper():
            raise Damaged("this PNG has a critical chunk that is not known")
        at, ended = end, name == b"IEND"
        if ended:
            break
    if not ended:
        raise Damaged("this PNG is cut short, or in too many pieces")
    per_pixel = _bytes_per_pixel(colour, depth, transparent=transparent)
    return Lean("PNG", width, height, orientation, per_pixel, b"".join(kept))


def _bytes_per_pixel(colour: int, depth: int, *, transparent: bool) -> int:
    """As decoded, then the RGB made of it (4 bytes in Pillow), both there at once; 8 is the least, for turning it."""
    if colour == GREY_ALPHA or (transparent and colour == RGB):
        return 13  # becomes RGBA first
    if transparent:
        return 10
    if colour == RGBA or (colour == GREY and depth == 16):
        return 9
    return 8
