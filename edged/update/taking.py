"""Takes one chosen release: what is on the disk already is linked, the rest fetched, all of it verified and staged."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from edged.errors import ModelError
from edged.store.digests import FileDigest
from edged.store.durable import StoreError, write_file
from edged.store.manifest import read_manifest
from edged.store.slot_files import used_bytes
from edged.store.slot_view import STAGING
from edged.store.slots import Slots
from edged.update.bundle import BUNDLE_FILE, Bundle, target_of
from edged.update.download import Downloader, reuse
from edged.update.errors import NoSpace, Untrusted
from edged.update.report import Reporter
from edged.update.settings import UpdateSettings

MIB = 2**20


class Taking:
    """Owns `.staging/<version>` while it runs. `targets`: every signed file by path.

    `waits()`: why nothing may change now, or empty. What was fetched until then stays for the next run.
    """

    def __init__(
        self,
        settings: UpdateSettings,
        slots: Slots,
        downloader: Downloader,
        reporter: Reporter,
        targets: Mapping[str, FileDigest],
        waits: Callable[[], str] = lambda: "",
    ) -> None:
        self._waits = waits
        self._settings, self._slots, self._downloader = settings, slots, downloader
        self._reporter, self._targets = reporter, targets

    def take(self, bundle: Bundle) -> None:
        """Stages the release. Raises what its steps raise; what was downloaded by then stays, to go on from."""
        target = target_of(bundle.model, bundle.release)
        described = self._targets[target]
        self._agree(bundle)
        wanted = {**bundle.digests(), BUNDLE_FILE: described}
        if not self._is_staged(bundle, wanted, described.sha256):
            self._slots.drop_staging(keep=bundle.version)
            aside = self._slots.staging(bundle.version)
            _drop_strangers(aside, wanted)
            self._bring(bundle, aside)
            write_file(aside / BUNDLE_FILE, self._downloader.fetch_bytes(stored_path(target, described), described))
            self._reporter.set(phase="verifying", bytes_done=bundle.size_bytes)
            _check_model(bundle, aside)
            if why := self._waits():
                self._reporter.set(phase="waiting", code="waits", message=why)
                return
            self._slots.stage(bundle.version, wanted, bundle.release, described.sha256)
        if self._settings.quota_bytes:
            self._slots.collect(self._settings.quota_bytes, frozenset({bundle.version}))
        self._reporter.set(phase="staged", bytes_done=bundle.size_bytes)

    def give_space_back(self) -> None:
        """A full disk harms more than this update: what was downloaded goes."""
        try:
            self._slots.drop_staging()
        except (OSError, StoreError):
            shutil.rmtree(self._slots.folder / STAGING, ignore_errors=True)

    def _agree(self, bundle: Bundle) -> None:
        """Each file of the bundle is a signed target of its own, with the same bytes. Raises Untrusted."""
        for name, digest in bundle.digests().items():
            if self._targets.get(bundle.target(name)) != digest:
                raise Untrusted(f"{bundle.target(name)} is signed as another file than the bundle says")

    def _is_staged(self, bundle: Bundle, wanted: Mapping[str, FileDigest], sha256: str) -> bool:
        """An earlier run may have done it all but the last report."""
        if bundle.version not in self._slots.versions():
            return False
        try:
            self._slots.stage(bundle.version, wanted, bundle.release, sha256)
        except (ModelError, StoreError):
            return False
        return True

    def _bring(self, bundle: Bundle, aside: Path) -> None:
        missing, saved = {}, 0
        for name, digest in sorted(bundle.digests().items()):
            if reuse(digest, self._candidates(aside / name, digest), aside / name, self._slots.folder):
                saved += digest.length_bytes
            else:
                missing[name] = digest
        self._reporter.set(phase="downloading", bytes_saved=saved, bytes_done=saved)
        self._check_space(aside, missing)
        done = saved
        for name, digest in missing.items():
            remote = stored_path(bundle.target(name), digest)
            self._downloader.fetch(remote, digest, aside / name, partial(self._progress, done))
            done += digest.length_bytes

    def _progress(self, before: int, at: int) -> None:
        self._reporter.progress(before + at)

    def _candidates(self, into: Path, digest: FileDigest) -> list[Path]:
        """Local files of that length: that of an earlier attempt, then the versions here, then what shipped."""
        folders = [self._slots.path(version) for version in self._slots.versions()]
        folders += [folder for folder in self._settings.shipped if folder.is_dir()]
        files = (path for folder in folders for path in sorted(folder.rglob("*")))
        return [into, *(path for path in files if _length(path) == digest.length_bytes)]

    def _check_space(self, aside: Path, missing: Mapping[str, FileDigest]) -> None:
        """Before the first byte: what is to come fits on the disk and in the quota. Raises NoSpace."""
        need = sum(max(0, digest.length_bytes - _length(part_of(aside / name))) for name, digest in missing.items())
        free = self._free_bytes(aside)
        if need > free and self._slots.collect(0):
            free = self._free_bytes(aside)
        if need > free:
            has = f"{max(0, free) / MIB:.1f} MiB are free beside the reserve"
            raise NoSpace(f"needs {need / MIB:.1f} MiB more on the disk; {has}")
        quota = self._settings.quota_bytes
        if quota and used_bytes(self._slots.folder) + need > quota:
            self._slots.collect(max(0, quota - need))
            if used_bytes(self._slots.folder) + need > quota:
                raise NoSpace(f"needs {need / MIB:.1f} MiB more, and the quota is {quota / MIB:.0f} MiB")

    def _free_bytes(self, folder: Path) -> int:
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize - self._settings.reserve_bytes


def stored_path(path: str, digest: FileDigest) -> str:
    """The file of a target in the repository: its digest stands before the last part of its path."""
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{digest.sha256}.{name}"


def part_of(path: Path) -> Path:
    """Where a file lies until it is whole."""
    return path.with_name(f".{path.name}.part")


def _drop_strangers(aside: Path, wanted: Mapping[str, FileDigest]) -> None:
    """What an earlier attempt left there that is not of this release."""
    kept = {aside / name for name in wanted} | {part_of(aside / name) for name in wanted}
    for path in aside.rglob("*"):
        if not path.is_dir() and path not in kept:
            path.unlink()


def _check_model(bundle: Bundle, aside: Path) -> None:
    """It is a model that edged would open, and no hungrier than was said before the download. Raises Untrusted."""
    try:
        manifest = read_manifest(aside)
    except ModelError as error:
        raise Untrusted(f"{bundle.model} {bundle.version}: {error.file}: {error.reason}") from error
    said = bundle.needs.kv_bytes_per_token
    if said and manifest.kv_bytes_per_token > said:
        raise Untrusted(f"{bundle.version} takes {manifest.kv_bytes_per_token} bytes of KV a token; said were {said}")


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size if not path.is_dir() else -1
    except OSError:
        return 0
