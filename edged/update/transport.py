"""Where the bytes come from: a web server or a folder, behind one small interface. Trusts nothing, keeps nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edged.store.digests import CHUNK_BYTES, is_file_name
from edged.update.errors import Unreachable


class NotThere(Unreachable):
    """The source is there, this file is not."""


@dataclass(frozen=True, slots=True)
class Stream:
    """`start` is the offset that the source really began at: 0 when it cannot go on from the middle of a file."""

    start: int
    chunks: Iterator[bytes]


class Transport(Protocol):
    """A source of files by relative path. Raises NotThere and Unreachable, also while the chunks are read."""

    def open(self, path: str, offset: int = 0) -> AbstractContextManager[Stream]: ...


class FolderTransport:
    """A repository in a folder: a USB stick, a network mount, a test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def open(self, path: str, offset: int = 0) -> Iterator[Stream]:
        if not is_file_name(path):
            raise NotThere(f"{path[:120]!r} is no file of a repository")
        try:
            descriptor = os.open(self._folder / path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self._folder.is_dir():
                raise Unreachable(f"{self._folder} is not there; is the medium mounted?") from error
            raise NotThere(f"{path} is not in {self._folder}") from error
        except OSError as error:
            raise Unreachable(f"{self._folder / path}: {error.strerror}") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotThere(f"{path} is no regular file")
            yield Stream(offset, _chunks(descriptor, offset, path))
        finally:
            os.close(descriptor)


def _chunks(descriptor: int, offset: int, path: str) -> Iterator[bytes]:
    at = offset
    while True:
        try:
            chunk = os.pread(descriptor, CHUNK_BYTES, at)
        except OSError as error:
            raise Unreachable(f"{path}: {error.strerror}") from error
        if not chunk:
            return
        at += len(chunk)
        yield chunk
