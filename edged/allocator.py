"""glibc's allocator, told to give memory back to the machine; other C libraries have no such calls and need none."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3  # <malloc.h>
LARGE_BYTES = 256 * 1024


def give_large_back_at_once() -> None:
    """Frames from 256 KiB on are mapped one by one, so that each leaves when it is freed.

    By itself glibc raises that bound to the size of the largest block that was freed, up to 32 MiB, and keeps those.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


def give_back() -> None:
    """What was freed and kept, however small the pieces; some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
