"""Writing that survives a power cut: aside, fsync, rename, fsync of the directory. Owns nothing."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from edged.errors import OwnerError

SHOWN_MODE = 0o644


class StoreError(OwnerError):
    """The store cannot do what was asked; the message says what lies on disk and what to do."""


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Makes the content of `path` durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes `folder` and its missing parents, each one durable before the next. Raises OSError."""
    if not folder.is_dir():
        make_folder(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
        sync_folder(folder.parent)


def write_file(path: Path, data: bytes, mode: int = SHOWN_MODE) -> None:
    """Replaces `path` with `data` in one step: after a cut it holds the old bytes or the new ones. Raises OSError."""
    aside = path.with_name(f".{path.name}.new")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        aside.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    sync_folder(path.parent)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """All of `data`, however many calls the system makes of it. Raises OSError."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def point(link: Path, target: str) -> None:
    """Makes the symbolic link `link` lead to `target` by one rename. Raises OSError."""
    aside = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    aside.symlink_to(target)
    aside.rename(link)
    sync_folder(link.parent)
