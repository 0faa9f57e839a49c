"""What a file must be, byte for byte: its SHA-256 and length; and the names that may come from outside."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edged.errors import ModelError

CHUNK_BYTES = 1 << 20
MAX_FILES = 1_000
MAX_FILE_NAME = 200

_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}"
_FILE = re.compile(rf"(?:{_PART}/){{0,3}}{_PART}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
RESERVED = frozenset({"active", "previous"})


@dataclass(frozen=True, slots=True)
class FileDigest:
    """`sha256` in lower-case hexadecimal digits."""

    sha256: str
    length_bytes: int


def is_file_name(text: str) -> bool:
    """A relative path of plain names, at most four deep: nothing hidden, no `..`, no backslash, no colon."""
    return len(text) <= MAX_FILE_NAME and _FILE.fullmatch(text) is not None


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """A model's name or a version: one path component that is not one of the store's own."""
    return _NAME.fullmatch(text) is not None and text not in RESERVED


def hash_file(path: Path, beat: Callable[[int], None] | None = None) -> FileDigest:
    """The digest of a regular file, never through a link; `beat(bytes)` after each chunk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        sha256, length = hashlib.sha256(), 0
        while chunk := os.read(descriptor, CHUNK_BYTES):
            sha256.update(chunk)
            length += len(chunk)
            if beat is not None:
                beat(len(chunk))
    finally:
        os.close(descriptor)
    return FileDigest(sha256.hexdigest(), length)


def extra_files(folder: Path, wanted: Iterable[str]) -> list[str]:
    """What lies in `folder` and is not of `wanted`, sorted; links count, whatever they lead to."""
    found = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()
    }
    return sorted(found - set(wanted))


def check_files(folder: Path, wanted: Mapping[str, FileDigest]) -> None:
    """Every file of `wanted` is there and right, and nothing else is. Raises ModelError naming the first that is not.

    Reads every byte.
    """
    if extra := extra_files(folder, wanted):
        raise ModelError(folder, extra[0], "is not part of this version; the folder was changed after it was staged")
    for name, digest in sorted(wanted.items()):
        try:
            got = hash_file(folder / name)
        except OSError as error:
            raise ModelError(folder, name, f"cannot be read: {error.strerror}") from error
        if got != digest:
            what = (
                f"has {got.length_bytes} of {digest.length_bytes} bytes"
                if got.length_bytes != digest.length_bytes
                else "differs"
            )
            raise ModelError(folder, name, f"{what} from what was signed; stage the version again")
