"""Tolerant reads of small kernel files and of the notations in them: absent and garbage are facts, not failures."""

from __future__ import annotations

from pathlib import Path

MAX_FILE_BYTES = 4 << 20
"""More than any file read here holds (/proc/cpuinfo of a 256-thread server is about 400 KB)."""


def read_bytes(path: Path, limit: int = MAX_FILE_BYTES) -> bytes | None:
    """The first `limit` bytes of a file; None if there is none to be had."""
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return None


def read_text(path: Path) -> str | None:
    """A file's text without trailing white space and NULs (device-tree strings end in one); None if unreadable."""
    data = read_bytes(path)
    return None if data is None else data.decode("utf-8", "replace").rstrip("\0 \t\r\n")


def parse_int(text: str) -> int | None:
    """A plain decimal integer as the kernel prints them; None for anything else (no underscores, no plus sign)."""
    text = text.strip()
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The kernel's list format: "0-3,8" → (0, 1, 2, 3, 8); garbage gives an empty tuple."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        low, high = parse_int(first), parse_int(last or first)
        if low is None or high is None or not 0 <= low <= high < 4096:
            return ()
        cpus += range(low, high + 1)
    return tuple(cpus)
