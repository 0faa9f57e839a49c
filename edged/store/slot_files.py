"""Folders of a version as a whole: sealed, measured, taken away."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

from edged.store.durable import make_folder, sync_file, sync_folder

FILE_MODE = 0o444


def used_bytes(folder: Path) -> int:
    """Disk blocks below `folder`; a file with several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            status = path.lstat()
            seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def seal(folder: Path) -> None:
    """Read-only files, then file contents, then names, bottom up, all durable."""
    for path in sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        if path.is_dir():
            sync_folder(path)
        else:
            path.chmod(FILE_MODE)
            sync_file(path)
    sync_folder(folder)


def throw_away(folder: Path, trash: Path) -> None:
    """Takes a folder out of sight by one rename, then removes it: no half-removed version is ever seen as one."""
    if not folder.exists():
        return
    make_folder(trash)
    aside = trash / f"{folder.name}.{time.monotonic_ns()}"
    folder.rename(aside)
    sync_folder(folder.parent)
    shutil.rmtree(aside, ignore_errors=True)
