"""JPEG: the header, and the file without application segments. Layout: ITU-T T.81, annex B."""

from __future__ import annotations

from dataclasses import dataclass

from edged.engine.images.lean import MAX_PARTS, Damaged, Lean
from edged.engine.images.orientation import read_orientation

SOI, EOI, SOS, APP0, APP1, APP14 = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xEE
TABLES = (0xC4, 0xDB, 0xDD)  # Huffman, quantisation, restart interval
FRAMES = {0xC0: False, 0xC1: False, 0xC2: True}  # baseline, extended, progressive; the value: many scans
MAX_SCANS = 100  # each costs a pass over the whole image, however few bytes it has; encoders write about ten
RGB_BYTES = 4  # a pixel in Pillow
COEFFICIENT_BYTES = 2


@dataclass(frozen=True, slots=True)
class _Frame:
    progressive: bool
    width: int
    height: int
    components: int
    samples: float  # coefficients per pixel, all components together


def lean_jpeg(data: bytes) -> Lean:
    """Header and picture of a JPEG. Raises Damaged."""
    kept, frame, orientation = [data[:2]], None, 1
    at, size = 2, len(data)
    for _ in range(MAX_PARTS):
        while at + 1 < size and data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1  # fill bytes
        if at + 4 > size or data[at] != 0xFF:
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + 2 + length
        if length < 2 or end > size:
            break
        if marker == SOS:
            if frame is None:
                raise Damaged("this JPEG has no header before its picture")
            return _finished(frame, orientation, [*kept, data[at:]], single_scan=data[at + 4] == frame.components)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None or marker not in FRAMES:
                raise Damaged("this kind of JPEG (lossless, arithmetic or hierarchical) is not read here")
            frame = _read_frame(data[at + 4 : end], progressive=FRAMES[marker])
            kept.append(data[at:end])
        elif marker in TABLES or (marker == APP0 and data[at + 4 : at + 8] == b"JFIF") or marker == APP14:
            kept.append(data[at:end])
        elif marker == APP1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = read_orientation(data[at + 4 : end])
        at = end
    raise Damaged("this JPEG is cut short or damaged")


def _read_frame(body: bytes, *, progressive: bool) -> _Frame:
    if len(body) < 6 or len(body) != 6 + 3 * body[5] or body[5] not in (1, 3, 4):
        raise Damaged("this JPEG's header is damaged")
    if body[0] != 8:
        raise Damaged(f"a JPEG of {body[0]} bits is not read here")
    factors = [(body[7 + 3 * part] >> 4, body[7 + 3 * part] & 15) for part in range(body[5])]
    if not all(1 <= across <= 4 and 1 <= down <= 4 for across, down in factors):
        raise Damaged("this JPEG's header is damaged")
    most = max(across for across, _ in factors) * max(down for _, down in factors)
    samples = sum(across * down for across, down in factors) / most
    height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
    return _Frame(progressive, width, height, body[5], samples)


def _finished(frame: _Frame, orientation: int, parts: list[bytes], *, single_scan: bool) -> Lean:
    if parts[-1].count(b"\xff\xda") > MAX_SCANS:
        raise Damaged(f"this JPEG has more than {MAX_SCANS} scans")
    held = RGB_BYTES
    if frame.progressive or not single_scan:
        held += round(frame.samples * COEFFICIENT_BYTES + 0.5)  # all coefficients are kept until the last scan
    upright = 2 * RGB_BYTES  # CMYK and the RGB made of it; or before and after it is turned
    return Lean("JPEG", frame.width, frame.height, orientation, max(held, upright), b"".join(parts))
