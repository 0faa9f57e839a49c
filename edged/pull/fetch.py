"""A listed folder of the hub, file by file, into a staging folder: small ones first, every byte checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from edged.errors import OwnerError, TryLater
from edged.pull.hub import Hub, Listing, RemoteFile
from edged.store.digests import FileDigest, hash_file
from edged.store.disk_errors import FULL, disk_errors
from edged.store.durable import StoreError, make_folder, write_file
from edged.store.genai_config import read_genai_config
from edged.store.genai_keys import CONFIG_FILE
from edged.store.vetting import Parts, split
from edged.update.download import Downloader, reuse
from edged.update.errors import DiskFailed, NoSpace, Unreachable, Untrusted
from edged.update.pace import Pace, Rates
from edged.update.transport import Transport

MAX_GIT_BYTES = 64 * 2**20
"""A larger file lies in LFS (or Xet), which tells its SHA-256; a smaller one may lie in git, which tells a SHA-1."""

Progress = Callable[[str, int], None]


def parts_of(listing: Listing) -> Parts:
    """Which of the files belong to a model. Raises OwnerError when they are none, or one cannot be checked."""
    parts = split(file.name for file in listing.files)
    if CONFIG_FILE not in parts.kept:
        raise OwnerError(
            f"{listing.repo}: no {CONFIG_FILE} in that folder; name the variant's own folder with --folder"
        )
    for file in wanted_files(listing):
        if file.sha256 is None and file.size_bytes > MAX_GIT_BYTES:
            raise OwnerError(f"{listing.repo}: {file.name} has no SHA-256 there, so it could not be checked: refused")
    return parts


def wanted_files(listing: Listing) -> tuple[RemoteFile, ...]:
    """The files that are fetched, the smallest first, so that a bad configuration is found before gigabytes came."""
    kept = set(split(file.name for file in listing.files).kept)
    first = {CONFIG_FILE: 0}
    return tuple(
        sorted(
            (file for file in listing.files if file.name in kept),
            key=lambda file: (first.get(file.name, 1), file.size_bytes, file.name),
        )
    )


def fetch(
    hub: Hub,
    listing: Listing,
    into: Path,
    *,
    rates: Rates = Rates(),
    progress: Progress = lambda name, done: None,
    have: Sequence[Path] = (),
    downloader: Callable[[Transport, Rates], Downloader] = Downloader,
) -> dict[str, FileDigest]:
    """Every wanted file under its name in `into`, and its digest. What lies there already and is right stays.

    `have` are folders on the same disk whose equal files are linked, not fetched. Raises TryLater when the network
    breaks (what came is kept), OwnerError for wrong bytes, ModelError for a configuration that edged refuses,
    StoreError for the disk.
    """
    source = hub.source(listing)
    files, loader = wanted_files(listing), downloader(source, rates)
    try:
        _drop_others(into, files)
        digests: dict[str, FileDigest] = {}
        for file in files:
            digests[file.name] = _one(source, loader, file, into, rates, progress, have)
            if file.name == CONFIG_FILE:
                read_genai_config(into)
        return digests
    except NoSpace as error:
        raise StoreError(FULL) from error
    except DiskFailed as error:
        raise StoreError(f"{into}: {error}") from error
    except Untrusted as error:
        raise OwnerError(
            f"{str(error).partition(':')[0]}: the bytes that {hub.endpoint} sends are not those it lists (hash or "
            "length); nothing was installed. Try once more; if it stays so, the hub or a proxy on the way is at fault"
        ) from error
    except Unreachable as error:
        raise TryLater(f"{error}. What came so far is kept: the same command goes on from there") from error


def _one(
    source: Transport,
    loader: Downloader,
    file: RemoteFile,
    into: Path,
    rates: Rates,
    progress: Progress,
    have: Sequence[Path],
) -> FileDigest:
    place = into / file.name
    if file.sha256 is None:
        with disk_errors():
            if not (place.is_file() and _git_sha1(place.read_bytes()) == file.git_sha1):
                make_folder(place.parent)
                write_file(place, _small(source, file, rates))
            progress(file.name, file.size_bytes)
            return hash_file(place)
    digest = FileDigest(file.sha256, file.size_bytes)
    if not reuse(
        digest,
        [path for path in (place, *(one / file.name for one in have)) if path.exists()],
        place,
        into.parent.parent,
    ):
        loader.fetch(file.name, digest, place, lambda done: progress(file.name, done))
    progress(file.name, file.size_bytes)
    return digest


def _small(source: Transport, file: RemoteFile, rates: Rates) -> bytes:
    """A file of git, in memory. Raises Untrusted and Unreachable."""
    data, pace = bytearray(), Pace(rates)
    with source.open(file.name) as stream:
        for chunk in stream.chunks:
            data += chunk
            if len(data) > file.size_bytes:
                break
            pace.arrived(len(chunk))
    if len(data) < file.size_bytes:
        raise Unreachable(f"{file.name}: ended after {len(data)} of {file.size_bytes} bytes")
    if _git_sha1(data) != file.git_sha1:
        raise Untrusted(f"{file.name}: not the bytes that were listed")
    return bytes(data)


def _git_sha1(data: bytes | bytearray) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _drop_others(into: Path, files: Iterable[RemoteFile]) -> None:
    """Removes what an attempt at another listing left behind; parts of wanted files stay."""
    wanted = {into / file.name for file in files}
    wanted |= {place.with_name(f".{place.name}.part") for place in wanted}
    with disk_errors():
        for path in into.rglob("*"):
            if path not in wanted and not path.is_dir():
                path.unlink()
