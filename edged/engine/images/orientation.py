"""EXIF orientation, and nothing else of EXIF: one tag of the first directory, read in a bounded number of steps.

Layout: Exif 2.32, 4.6.2 (a TIFF header, then a directory of 12-byte entries).
"""

from __future__ import annotations

import struct

MAX_ENTRIES = 512
ORIENTATION, SHORT = 0x0112, 3


def read_orientation(exif: bytes) -> int:
    """1 to 8; 1 (upright) also when there is none or the data makes no sense: it is a hint, not part of the picture."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start)
        for number in range(min(entries, MAX_ENTRIES)):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, start + 2 + 12 * number)
            if tag == ORIENTATION:
                return value if kind == SHORT and count == 1 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
