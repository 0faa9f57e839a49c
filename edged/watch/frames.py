"""The newest frame of a source, and how many older ones were passed over. Nothing here waits for whoever is slow."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edged.errors import OwnerError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
MAX_FRAME_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Frame:
    """One image: `name` of its file, or its number from the camera; `dropped` came between it and the one before."""

    name: str
    data: bytes
    dropped: int


class Source(Protocol):
    """Something that gives frames."""

    def newest(self) -> Frame | None:
        """The newest frame that was not given yet, None when there is none. Raises OwnerError when it has gone."""

    def close(self) -> None:
        """Let go of it."""


class FolderSource:
    """New image files of one folder. A file counts once its size and time were the same in two looks, so that one
    that is still being written is not read; what lay there at the start is not new."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._given = self._look()
        self._before = dict(self._given)

    def newest(self) -> Frame | None:
        now = self._look()
        settled = [
            (mark[0], name)
            for name, mark in now.items()
            if mark != self._given.get(name) and mark == self._before.get(name)
        ]
        self._before = now
        self._given = {name: mark for name, mark in self._given.items() if name in now}
        for _, name in settled:
            self._given[name] = now[name]
        for _, name in sorted(settled, reverse=True):
            data = self._read(name)
            if data:
                return Frame(name, data, len(settled) - 1)
        return None

    def close(self) -> None:
        pass

    def _look(self) -> dict[str, tuple[int, int]]:
        """Name → (time of the last change in ns, size) of the image files there now."""
        found = {}
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if Path(entry.name).suffix.lower() in SUFFIXES and not entry.name.startswith("."):
                        about = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(about.st_mode) and 0 < about.st_size <= MAX_FRAME_BYTES:
                            found[entry.name] = (about.st_mtime_ns, about.st_size)
        except FileNotFoundError as error:
            if not self._folder.is_dir():
                raise OwnerError(f"{self._folder}: the folder has gone") from error
        except OSError as error:
            raise OwnerError(f"{self._folder}: cannot be read: {error.strerror}") from error
        return found

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError:  # taken away again
            return b""
