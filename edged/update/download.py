"""Brings one file from a source into a folder: in pieces, hashed on the way, going on where it was cut off.

A file appears under its name only when every byte is right and durable; until then it is `.<name>.part`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edged.store.digests import CHUNK_BYTES, FileDigest, hash_file
from edged.store.durable import make_folder, sync_folder, write_all
from edged.update.errors import DiskFailed, NoSpace, TooSlow, Unreachable, Untrusted, UpdateError
from edged.update.pace import Pace, Rates
from edged.update.transport import NotThere, Transport

ATTEMPTS = 5
FIRST_WAIT_S = 1.0
FLUSH_BYTES = 32 << 20  # what was written is given back to the system now and then: its memory is the model's

Progress = Callable[[int], None]


class Downloader:
    """Owns no state between files but the source and how fast it may be read."""

    def __init__(
        self,
        transport: Transport,
        rates: Rates,
        *,
        attempts: int = ATTEMPTS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport, self._rates, self._attempts = transport, rates, attempts
        self._clock, self._sleep = clock, sleep

    def fetch(self, path: str, digest: FileDigest, into: Path, progress: Progress = lambda _: None) -> None:
        """`path` of the source as the file `into`. A break is tried again, with longer waits, from where it was.

        Raises Unreachable, TooSlow, Untrusted (wrong bytes, or more than there should be), NoSpace, DiskFailed.
        """
        part = into.with_name(f".{into.name}.part")
        try:
            make_folder(into.parent)
            left, wait_s, spoiled = self._attempts, FIRST_WAIT_S, 0
            while True:
                had = _size(part)
                try:
                    self._continue(path, digest, part, progress)
                    break
                except _Spoiled as error:  # what an earlier attempt left may be to blame: once more from nothing
                    spoiled += 1
                    if spoiled > 1 or not had:
                        raise Untrusted(str(error)) from error
                except (NotThere, TooSlow):
                    raise
                except Unreachable:
                    left, wait_s = (self._attempts, FIRST_WAIT_S) if _size(part) > had else (left, wait_s)
                    left -= 1
                    if left <= 0:
                        raise
                    self._sleep(wait_s)
                    wait_s *= 2
            part.rename(into)
            sync_folder(into.parent)
        except OSError as error:
            raise disk_error(error, into.name) from error

    def fetch_bytes(self, path: str, digest: FileDigest) -> bytes:
        """A small file, in memory. Raises as `fetch` does."""
        pace, data = Pace(self._rates, self._clock, self._sleep), bytearray()
        with self._transport.open(path) as stream:
            for chunk in stream.chunks:
                data += chunk
                if len(data) > digest.length_bytes:
                    break
                pace.arrived(len(chunk))
        if FileDigest(hashlib.sha256(data).hexdigest(), len(data)) != digest:
            raise Untrusted(f"{path}: not the bytes that were signed")
        return bytes(data)

    def _continue(self, path: str, digest: FileDigest, part: Path, progress: Progress) -> None:
        """Appends to `part` what is missing and makes it durable. Raises _Spoiled, and then `part` is gone."""
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            sha256, length = _hash_start(descriptor, digest.length_bytes)
            if length < digest.length_bytes or not length:
                length, sha256 = self._append(path, digest, descriptor, length, sha256, progress)
            if length != digest.length_bytes:
                raise Unreachable(f"{path}: ended after {length} of {digest.length_bytes} bytes")
            if sha256.hexdigest() != digest.sha256:
                raise _Spoiled(f"{path}: not the bytes that were signed")
            os.fsync(descriptor)
        except _Spoiled:
            part.unlink()
            raise
        finally:
            os.close(descriptor)

    def _append(
        self, path: str, digest: FileDigest, descriptor: int, length: int, sha256: hashlib._Hash, progress: Progress
    ) -> tuple[int, hashlib._Hash]:
        pace, unflushed = Pace(self._rates, self._clock, self._sleep), 0
        with self._transport.open(path, length) as stream:
            if stream.start != length:
                os.ftruncate(descriptor, 0)
                length, sha256 = 0, hashlib.sha256()
            os.lseek(descriptor, length, os.SEEK_SET)
            progress(length)
            for chunk in stream.chunks:
                if length + len(chunk) > digest.length_bytes:
                    raise _Spoiled(f"{path}: longer than the {digest.length_bytes} bytes that were signed")
                write_all(descriptor, chunk)
                sha256.update(chunk)
                length += len(chunk)
                unflushed += len(chunk)
                if unflushed >= FLUSH_BYTES:
                    os.fdatasync(descriptor)
                    os.posix_fadvise(descriptor, 0, length, os.POSIX_FADV_DONTNEED)
                    unflushed = 0
                progress(length)
                pace.arrived(len(chunk))
        return length, sha256


class _Spoiled(Exception):
    """The bytes are wrong; the part they lie in was removed."""


def reuse(digest: FileDigest, candidates: Iterable[Path], into: Path, linkable: Path) -> bool:
    """Makes `into` from a local file with the same bytes, if there is one: a link inside `linkable`, else a copy.

    Every byte of the candidate is read first. Raises NoSpace or DiskFailed when the new file cannot be made.
    """
    for path in candidates:
        try:
            if path.is_symlink() or path.stat().st_size != digest.length_bytes or hash_file(path) != digest:
                continue
        except OSError:
            continue  # a file that cannot be read is fetched instead
        if path == into:
            return True
        try:
            make_folder(into.parent)
            _take_over(path, into, linked=path.is_relative_to(linkable))
        except OSError as error:
            raise disk_error(error, into.name) from error
        return True
    return False


def _take_over(path: Path, into: Path, *, linked: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        into.unlink()
    if linked:
        with contextlib.suppress(OSError):  # other owner, other file system, too many links: copied instead
            os.link(path, into)
            sync_folder(into.parent)
            return
    part = into.with_name(f".{into.name}.part")
    shutil.copyfile(path, part)
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(into)
    sync_folder(into.parent)


def disk_error(error: OSError, what: str) -> UpdateError:
    """The system's refusal as one of ours."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(f"the disk is full ({what}); free some space, the update goes on where it was")
    return DiskFailed(f"{what}: {error.strerror or error}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _hash_start(descriptor: int, limit: int) -> tuple[hashlib._Hash, int]:
    """What lies there already, up to `limit` bytes; anything beyond is cut off."""
    sha256, length = hashlib.sha256(), 0
    while length < limit and (chunk := os.read(descriptor, min(CHUNK_BYTES, limit - length))):
        sha256.update(chunk)
        length += len(chunk)
    os.ftruncate(descriptor, length)
    return sha256, length
