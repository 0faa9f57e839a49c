"""One run of the updater: fetch metadata, trust, choose, download, verify, stage. It never activates anything.

Owns `STATE/update/` while it holds the lock there. Whatever ends a run, the active model is untouched, the report says
what happened, and another run goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edged.errors import ModelError, OwnerError
from edged.store.durable import StoreError, make_folder
from edged.store.journal import refused
from edged.store.lock import locked
from edged.store.slots import Slots
from edged.update import hold
from edged.update.bundle import (
    MAX_BUNDLE_BYTES,
    Bundle,
    bundle_target,
    parse_bundle,
    read_bundle,
)
from edged.update.download import Downloader, disk_error
from edged.update.errors import DiskFailed, NoSpace, Untrusted, UpdateBusy, UpdateError
from edged.update.floors import FloorStore
from edged.update.report import Report, Reporter
from edged.update.rollout import Choice, Installed, choose, waits
from edged.update.settings import UpdateSettings
from edged.update.taking import Taking, stored_path
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
        self._reporter = Reporter(folder, settings.model, now_s, tell, settings.asked)

    def main(self) -> Report:
        reporter = self._reporter
        taking: Taking | None = None
        try:
            self._slots.recover()
            reporter.set(phase="checking", active=self._slots.active or "")
            vouched = self._refresh()
            bundle = self._decide(vouched)
            if bundle is not None:
                why_wait = partial(self._waits, vouched.clock_behind_s)
                taking = Taking(self._settings, self._slots, self._downloader, reporter, vouched.targets, why_wait)
                taking.take(bundle)
        except (OwnerError, OSError) as problem:
            error = disk_error(problem, "the store") if isinstance(problem, OSError) else problem
            if isinstance(error, NoSpace) and taking is not None:
                taking.give_space_back()
            code = error.code if isinstance(error, UpdateError) else "failed"
            reporter.set(phase="failed", code=code, message=str(error))
        return reporter.report

    def _decide(self, vouched: Vouched) -> Bundle | None:
        """The release to take now, or None; the report then says why not."""
        installed = self._installed()
        bundles = self._bundles(vouched, installed.release)
        box, rules = self._settings.box(), self._settings.rules(hold.held(self._folder))
        choice = choose(bundles, box, installed, rules, self._now_s() + vouched.clock_behind_s)
        self._tell_choice(choice)
        return None if choice.waits or self._settings.action == "check" else choice.bundle

    def _waits(self, clock_behind_s: float) -> str:
        """Asked again when all is fetched, which may be hours later: what is staged is taken over at once.

        The hold and the window are those of that moment; mains, heat and work are as they were told at the start.
        """
        rules = self._settings.rules(hold.held(self._folder))
        return waits(self._settings.box(), rules, self._now_s() + clock_behind_s)

    def _refresh(self) -> Vouched:
        try:
            anchor = self._settings.root_file.read_bytes()
        except OSError as error:
            raise Untrusted(
                f"{self._settings.root_file}: the root of trust cannot be read: {error.strerror}"
            ) from error
        floors = FloorStore(self._folder, self._settings.state_dir / "models" / ".floors")
        trust = Trust(self._folder / "trust", anchor, floors, self._now_s, self._settings.rates)
        try:
            vouched = trust.refresh(self._transport)
        finally:
            self._reporter.set(notes=tuple(trust.notes))
        self._reporter.set(
            metadata=dict(vouched.versions), clock_behind_s=int(vouched.clock_behind_s), checked_s=int(self._now_s())
        )
        return vouched

    def _bundles(self, vouched: Vouched, floor: int) -> list[Bundle]:
        """Every release of the model from `floor` on, which is the active one."""
        found = sorted(
            (release, path)
            for path in vouched.targets
            if (named := bundle_target(path)) is not None and named[0] == self._settings.model
            for release in (named[1],)
        )[-MAX_BUNDLES:]
        bundles = []
        for release, path in found:
            digest = vouched.targets[path]
            if release < floor:
                continue
            if digest.length_bytes > MAX_BUNDLE_BYTES:
                raise Untrusted(f"{path} has {digest.length_bytes} bytes; a bundle has at most {MAX_BUNDLE_BYTES}")
            bundles.append(parse_bundle(self._downloader.fetch_bytes(stored_path(path, digest), digest), path))
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
