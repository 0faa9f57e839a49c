"""WebP: the header, and the file without metadata. Layout: RFC 9649."""

from __future__ import annotations

import struct

from edged.engine.images.lean import MAX_PARTS, Damaged, Lean
from edged.engine.images.orientation import read_orientation

NEEDED = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
ICC_FLAG, EXIF_FLAG, XMP_FLAG = 0x20, 0x08, 0x04
BYTES_PER_PIXEL = 20  # libwebp's two canvases and its working copy, the frame as bytes, the image


def lean_webp(data: bytes) -> Lean:
    """Header and picture of a WebP file; Pillow draws the first frame of an animated one. Raises Damaged."""
    size = 8 + int.from_bytes(data[4:8], "little")
    if size > len(data):
        raise Damaged("this WebP is cut short")
    chunks: list[bytes] = []
    dimensions, orientation, frames, at = (0, 0), 1, 0, 12
    for _ in range(MAX_PARTS):
        if at + 8 > size:
            break
        name, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length
        if end > size:
            raise Damaged("this WebP is cut short")
        body = data[at + 8 : end]
        if not chunks:
            dimensions = _dimensions(name, body)
            if name == b"VP8X":
                body = bytes([body[0] & ~(ICC_FLAG | EXIF_FLAG | XMP_FLAG)]) + body[1:]
        if name == b"EXIF":
            orientation = read_orientation(body)
        frames += name == b"ANMF"
        if name in NEEDED and (name != b"ANMF" or frames == 1):
            chunks.append(name + struct.pack("<I", length) + body + b"\0" * (length % 2))
        at = end + length % 2
    if not chunks:
        raise Damaged("this WebP holds no picture")
    content = b"WEBP" + b"".join(chunks)
    lean = b"RIFF" + struct.pack("<I", len(content)) + content
    return Lean("WEBP", *dimensions, orientation, BYTES_PER_PIXEL, lean)


def _dimensions(name: bytes, body: bytes) -> tuple[int, int]:
    if name == b"VP8X" and len(body) >= 10:
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if name == b"VP8L" and len(body) >= 5 and body[0] == 0x2F:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8 " and len(body) >= 10 and body[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    raise Damaged("this WebP has no header")
