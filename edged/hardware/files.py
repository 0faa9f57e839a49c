"""Tolerant reads of small kernel files: absent, unreadable and garbage are facts here, not failures."""

from __future__ import annotations

from pathlib import Path

MAX_FILE_BYTES = 4 << 20
"""More than any file read here holds (/proc/cpuinfo of a 256-thread server is about 400 KB)."""


def read_text(path: Path) -> str | None:
    """The file's text without trailing white space and NULs (device-tree strings end in one); None if unreadable."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES).decode("utf-8", "replace").rstrip("\0 \t\r\n")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The file's whole text as a decimal integer; None if unreadable or anything else."""
    return parse_int(read_text(path))


def parse_int(text: str | None) -> int | None:
    """A plain decimal integer as the kernel prints them; None for anything else (no underscores, no plus sign)."""
    text = (text or "").strip()
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None


def list_dir(path: Path) -> list[Path]:
    """The entries of a directory in natural order (cpu2 before cpu10); empty if unreadable."""
    try:
        return sorted(path.iterdir(), key=lambda entry: (len(entry.name), entry.name))
    except OSError:
        return []
