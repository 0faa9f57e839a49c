"""One run of the updater: fetch metadata, trust, choose, download, verify, stage. It never activates anything.

Owns `STATE/update/` while it holds the lock there. Whatever ends a run, the active model is untouched, the report says
what happened, and another run goes on from there.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edged.errors import ModelError, OwnerError
from edged.store.digests import FileDigest
from edged.store.durable import StoreError, make_folder, write_file
from edged.store.journal import refused
from edged.store.lock import locked
from edged.store.manifest import read_manifest
from edged.store.slots import Slots, used_bytes
from edged.update import hold
from edged.update.bundle import (
    BUNDLE_FILE,
    MAX_BUNDLE_BYTES,
    Bundle,
    bundle_target,
    parse_bundle,
    read_bundle,
    target_of,
)
from edged.update.download import Downloader, disk_error, reuse
from edged.update.errors import DiskFailed, NoSpace, Untrusted, UpdateBusy, UpdateError
from edged.update.floors import FloorStore
from edged.update.report import Report, Reporter
from edged.update.rollout import Choice, Installed, choose
from edged.update.settings import UpdateSettings
from edged.update.transport import FolderTransport, Transport
from edged.update.trust import Trust, Vouched
from edged.update.web import Identity, WebTransport

FOLDER, LOCK = "update", "lock"
LOCK_WAIT_S = 0.2
MAX_BUNDLES = 200


def run(
    settings: UpdateSettings,
    transport: Transport | None = None,
    *,
    now_s: Callable[[], float] = time.time,
    tell: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Does it all; returns the last report. Raises UpdateBusy when another one is at work, or DiskFailed."""
    folder = settings.state_dir / FOLDER
    try:
        make_folder(folder)
    except OSError as error:
        raise DiskFailed(f"{folder}: {error.strerror}") from error
    try:
        with locked(folder / LOCK, LOCK_WAIT_S):
            return _Run(settings, transport or open_source(settings), folder, now_s, tell).main()
    except StoreError as error:
        raise UpdateBusy("another updater is at work; see `edged update status`") from error
    except OSError as error:
        raise disk_error(error, LOCK) from error


def open_source(settings: UpdateSettings) -> Transport:
    """The transport that the source's name asks for."""
    source = settings.source
    if source.startswith(("http://", "https://")):
        return WebTransport(source, Identity(settings.authorities, settings.certificate, settings.key))
    return FolderTransport(Path(source.removeprefix("file://")))


class _Run:
    def __init__(
        self,
        settings: UpdateSettings,
        transport: Transport,
        folder: Path,
        now_s: Callable[[], float],
        tell: Callable[[Report], None],
    ) -> None:
        self._settings, self._transport, self._folder, self._now_s = settings, transport, folder, now_s
        self._slots = Slots(settings.state_dir, settings.model, now_s)
        self._downloader = Downloader(transport, settings.rates, attempts=settings.attempts)
        self._reporter = Reporter(folder, settings.model, now_s, tell)

    def main(self) -> Report:
        reporter = self._reporter
        try:
            self._slots.recover()
            reporter.set(phase="checking", active=self._slots.active or "")
            bundle = self._look()
            if bundle is not None:
                self._take(bundle)
        except (OwnerError, OSError) as problem:
            error = disk_error(problem, "the store") if isinstance(problem, OSError) else problem
            if isinstance(error, NoSpace):
                self._give_space_back()
            code = error.code if isinstance(error, UpdateError) else "failed"
            reporter.set(phase="failed", code=code, message=str(error))
        return reporter.report

    def _look(self) -> Bundle | None:
        """The release to take now, or None; the report then says why not."""
        vouched = self._refresh()
        bundles = self._bundles(vouched)
        installed = self._installed()
        box, rules = self._settings.box(), self._settings.rules(hold.held(self._folder))
        choice = choose(bundles, box, installed, rules, self._now_s() + vouched.clock_behind_s)
        self._tell_choice(choice)
        if choice.bundle is None or choice.waits or self._settings.action == "check":
            return None
        self._agree(choice.bundle, vouched)
        self._vouched = vouched
        return choice.bundle

    def _refresh(self) -> Vouched:
        try:
            anchor = self._settings.root_file.read_bytes()
        except OSError as error:
            raise Untrusted(
                f"{self._settings.root_file}: the root of trust cannot be read: {error.strerror}"
            ) from error
        floors = FloorStore(self._folder, self._settings.state_dir / "models" / ".floors")
        trust = Trust(self._folder / "trust", anchor, floors, self._now_s)
        try:
            vouched = trust.refresh(self._transport)
        finally:
            self._reporter.set(notes=tuple(trust.notes))
        self._reporter.set(
            metadata=dict(vouched.versions), clock_behind_s=int(vouched.clock_behind_s), checked_s=int(self._now_s())
        )
        return vouched

    def _bundles(self, vouched: Vouched) -> list[Bundle]:
        """Every release of the model that is newer than what is active, and the one that is."""
        found = sorted(
            (release, path)
            for path in vouched.targets
            if (named := bundle_target(path)) is not None and named[0] == self._settings.model
            for release in (named[1],)
        )[-MAX_BUNDLES:]
        floor = self._installed().release
        bundles = []
        for release, path in found:
            digest = vouched.targets[path]
            if release < floor:
                continue
            if digest.length_bytes > MAX_BUNDLE_BYTES:
                raise Untrusted(f"{path} has {digest.length_bytes} bytes; a bundle has at most {MAX_BUNDLE_BYTES}")
            bundles.append(parse_bundle(self._downloader.fetch_bytes(_stored(path, digest), digest), path))
        return bundles

    def _installed(self) -> Installed:
        active, release = self._slots.active, 0
        if active is not None:
            try:
                release = read_bundle(self._slots.path(active)).release
            except ModelError:
                release = 0  # put there by hand: any release is newer
        return Installed(active, release, refused(self._slots.journal.read()))

    def _tell_choice(self, choice: Choice) -> None:
        passed = tuple(
            {"release": one.release, "version": one.version, "why": one.why.value, "detail": one.detail}
            for one in choice.passed
        )
        if choice.bundle is None:
            self._reporter.set(phase="up_to_date", passed=passed, code="", message="")
            return
        bundle = choice.bundle
        staged = "available" if not choice.waits else "waiting"
        self._reporter.set(
            phase=staged,
            passed=passed,
            version=bundle.version,
            release=bundle.release,
            code="waits" if choice.waits else "",
            message=choice.waits,
            bytes_total=bundle.size_bytes,
        )

    def _agree(self, bundle: Bundle, vouched: Vouched) -> None:
        """Each file of the bundle is a signed target of its own, with the same bytes. Raises Untrusted."""
        for name, digest in bundle.digests().items():
            if vouched.targets.get(bundle.target(name)) != digest:
                raise Untrusted(f"{bundle.target(name)} is signed as another file than the bundle says")

    def _take(self, bundle: Bundle) -> None:
        target = target_of(bundle.model, bundle.release)
        described = self._vouched.targets[target]
        wanted = {**bundle.digests(), BUNDLE_FILE: described}
        if bundle.version not in self._slots.versions() or not self._is_staged(bundle, wanted, described.sha256):
            self._slots.drop_staging(keep=bundle.version)
            aside = self._slots.staging(bundle.version)
            self._drop_strangers(aside, wanted)
            self._download(bundle, aside)
            write_file(aside / BUNDLE_FILE, self._downloader.fetch_bytes(_stored(target, described), described))
            self._reporter.set(phase="verifying", bytes_done=bundle.size_bytes)
            self._check_model(bundle, aside)
            self._slots.stage(bundle.version, wanted, bundle.release, described.sha256)
        if self._settings.quota_bytes:
            self._slots.collect(self._settings.quota_bytes, frozenset({bundle.version}))
        self._reporter.set(phase="staged", bytes_done=bundle.size_bytes)

    def _is_staged(self, bundle: Bundle, wanted: dict[str, FileDigest], sha256: str) -> bool:
        try:
            self._slots.stage(bundle.version, wanted, bundle.release, sha256)
        except (ModelError, StoreError):
            return False
        return True

    def _drop_strangers(self, aside: Path, wanted: dict[str, FileDigest]) -> None:
        """What an earlier attempt left there that is not of this release."""
        kept = {aside / name for name in wanted} | {_part(aside / name) for name in wanted}
        for path in aside.rglob("*"):
            if not path.is_dir() and path not in kept:
                path.unlink()

    def _download(self, bundle: Bundle, aside: Path) -> None:
        """Every file: what is on the disk already is linked or copied, the rest is fetched."""
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
            remote = _stored(bundle.target(name), digest)
            self._downloader.fetch(remote, digest, aside / name, partial(self._progress, done))
            done += digest.length_bytes

    def _progress(self, before: int, at: int) -> None:
        self._reporter.progress(before + at)

    def _candidates(self, into: Path, digest: FileDigest) -> list[Path]:
        """Local files of that length, those of an earlier attempt first, then the versions here, then what shipped."""
        folders = [self._slots.path(version) for version in self._slots.versions()]
        folders += [folder for folder in self._settings.shipped if folder.is_dir()]
        found = [
            path for folder in folders for path in sorted(folder.rglob("*")) if _length(path) == digest.length_bytes
        ]
        return [into, *found]

    def _check_space(self, aside: Path, missing: dict[str, FileDigest]) -> None:
        """Before the first byte: what is to come fits on the disk and in the quota. Raises NoSpace."""
        need = sum(max(0, digest.length_bytes - _length(_part(aside / name))) for name, digest in missing.items())
        status = os.statvfs(aside)
        free = status.f_bavail * status.f_frsize - self._settings.reserve_bytes
        if need > free and self._sweep():
            status = os.statvfs(aside)
            free = status.f_bavail * status.f_frsize - self._settings.reserve_bytes
        if need > free:
            has = f"{max(0, free) / 2**20:.1f} MiB are free beside the reserve"
            raise NoSpace(f"needs {need / 2**20:.1f} MiB more on the disk; {has}")
        quota = self._settings.quota_bytes
        if quota and used_bytes(self._slots.folder) + need > quota and not self._sweep_to(quota - need):
            raise NoSpace(f"needs {need / 2**20:.1f} MiB, more than the quota of {quota / 2**20:.0f} MiB leaves")

    def _sweep(self) -> bool:
        return bool(self._slots.collect(0))

    def _sweep_to(self, quota_bytes: int) -> bool:
        self._slots.collect(max(0, quota_bytes))
        return used_bytes(self._slots.folder) <= quota_bytes

    def _check_model(self, bundle: Bundle, aside: Path) -> None:
        """It is a model that edged would open, and as large as was said before the download. Raises Untrusted."""
        try:
            manifest = read_manifest(aside)
        except ModelError as error:
            raise Untrusted(f"{bundle.model} {bundle.version}: {error.file}: {error.reason}") from error
        said = bundle.needs.kv_bytes_per_token
        if said and manifest.kv_bytes_per_token > said:
            raise Untrusted(
                f"{bundle.version} takes {manifest.kv_bytes_per_token} bytes of KV a token, said were {said}"
            )

    def _give_space_back(self) -> None:
        """A full disk harms more than this update: what was downloaded goes."""
        try:
            self._slots.drop_staging()
        except (OSError, StoreError):
            shutil.rmtree(self._slots.folder / ".staging", ignore_errors=True)


def _stored(path: str, digest: FileDigest) -> str:
    """The file of a target in the repository: its digest stands before the last part of its path."""
    folder, _, name = path.rpartition("/")
    return f"targets/{folder}/{digest.sha256}.{name}" if folder else f"targets/{digest.sha256}.{name}"


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size if not path.is_dir() else -1
    except OSError:
        return 0
