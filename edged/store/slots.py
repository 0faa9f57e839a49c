"""The versions of one model on disk, and which of them is active. Owns `STATE/models/<name>/`.

    <version>/       content never changes once it is there
    active           symbolic link to a version; replacing it by one rename is the only commit point
    previous         symbolic link to the version to go back to; rebuilt from the journal when it is wrong
    .staging/        versions on their way in      .trash/  versions on their way out
    .journal  .lock

Cut off anywhere, `active` leads to the old version or to the new one, whole. Every step may run twice. What is *in* a
version, and whether it is any good, is for others to say.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edged.errors import ModelError
from edged.store import digests
from edged.store.digests import FileDigest
from edged.store.durable import StoreError, make_folder, point, sync_folder
from edged.store.journal import Event
from edged.store.lock import locked
from edged.store.slot_files import seal, throw_away, used_bytes
from edged.store.slot_view import ACTIVE, LOCK, PREVIOUS, STAGING, TRASH, SlotView

MAX_VERSIONS = 64


class Slots(SlotView):
    """Changes them. Every method takes the lock, so that updater and daemon may both call."""

    def staging(self, version: str) -> Path:
        """The folder to put a new version's files into; what an earlier attempt left there is kept, to go on from."""
        folder = self.folder / STAGING / self.path(version).name
        make_folder(folder)
        return folder

    def stage(self, version: str, wanted: Mapping[str, FileDigest], release: int = 0, digest: str = "") -> Path:
        """Turns `staging(version)` into a version, after reading back every byte.

        A version of that name that is there already stays if it is the same, and is replaced if it is not in use.
        `digest` is kept in the journal: the SHA-256 of the signed description of this version.
        Raises ModelError for a file that is not what was signed, StoreError, and OSError when the disk fails.
        """
        final, aside = self.path(version), self.folder / STAGING / version
        if final.is_dir() and self._is_whole(final, wanted):
            with self._locked():
                throw_away(aside, self.folder / TRASH)
                if digest and (self.staged_digest(version) != digest or self._was_forgiven(version)):
                    self.journal.note("staged", version, release=release, digest=digest)
            return final
        digests.check_files(aside, wanted)
        seal(aside)
        with self._locked():
            if final.is_dir():
                if version in (self.active, self.previous):
                    raise StoreError(
                        f"{self.model} {version} is in use and differs from what is staged; use a new version"
                    )
                throw_away(final, self.folder / TRASH)
            if len(self.versions()) >= MAX_VERSIONS:
                raise StoreError(f"{self.model} has {MAX_VERSIONS} versions on disk; remove some")
            self.journal.note("staged", version, release=release, digest=digest)
            aside.rename(final)
            sync_folder(self.folder)
            sync_folder(aside.parent)
        return final

    def _was_forgiven(self, version: str) -> bool:
        """Whether that is the last word on it: staged anew, it is tried again."""
        return (
            next((entry.event for entry in reversed(self.journal.read()) if entry.version == version), "") == "forgive"
        )

    def activate(self, version: str, release: int = 0) -> None:
        """Makes a staged version the active one. Raises StoreError when it is not there, OSError when the disk fails.

        After an error the old version is active, or the new one: `active` tells.
        """
        with self._locked():
            if not self.path(version).is_dir():
                raise StoreError(f"{self.model} {version} is not staged")
            self._mend()
            old = self.active
            if old == version:
                return
            self.journal.note("activate", version, release=release, replaced=old or "")
            if old is not None:
                point(self.folder / PREVIOUS, old)
            point(self.folder / ACTIVE, version)

    def commit(self, version: str) -> None:
        """Notes that the active version has proved itself. Raises StoreError when it is not the active one."""
        with self._locked():
            if self.active != version:
                raise StoreError(f"{self.model} {version} is not active")
            self.journal.note("commit", version)

    def roll_back(self, reason: str, release: int = 0) -> str | None:
        """Makes `previous` active again, remembers the version left behind as refused, and returns the active one.

        None: there was no version before it in the store, so that none is active and the model that shipped is used.
        Raises StoreError when none is active. Needs no free space: notes that do not fit on the disk are made after
        the refused version was removed.
        """
        with self._locked():
            self._mend()
            bad, good = self.active, self.previous
            if bad is None:
                raise StoreError(f"{self.model} has no active version to go back from")
            noted = self._try_note("roll_back", good or "", replaced=bad, reason=reason)
            noted &= self._try_note("refuse", bad, release=release, reason=reason)
            if good is not None:
                point(self.folder / ACTIVE, good)
            else:
                (self.folder / ACTIVE).unlink()
                sync_folder(self.folder)
            self._mend()
            if not noted:
                throw_away(self.path(bad), self.folder / TRASH)
                self.journal.note("roll_back", good or "", replaced=bad, reason=reason)
                self.journal.note("refuse", bad, release=release, reason=reason)
                self._mend()
            return good

    def refuse(self, version: str, reason: str, release: int = 0) -> None:
        """Remembers that a version failed here, and removes it when it is not in use. Raises OSError."""
        with self._locked():
            if self.path(version).is_dir() and version not in (self.active, self.previous):
                throw_away(self.path(version), self.folder / TRASH)
            self.journal.note("refuse", version, release=release, reason=reason)

    def forgive(self, version: str) -> None:
        """Lets a refused version be tried again. Raises OSError."""
        with self._locked():
            self.journal.note("forgive", version)

    def collect(self, quota_bytes: int, keep: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Removes the versions longest on disk until the rest fits `quota_bytes`; returns what went. Raises OSError.

        Never touches the active and the previous version, nor those in `keep`, even if they do not fit.
        """
        with self._locked():
            held = {self.active, self.previous} | keep
            old_first = sorted(set(self.versions()) - held, key=lambda name: (self.path(name).stat().st_mtime_ns, name))
            gone: list[str] = []
            for version in old_first:
                if used_bytes(self.folder) <= quota_bytes:
                    break
                throw_away(self.path(version), self.folder / TRASH)
                self.journal.note("discard", version, reason="quota")
                gone.append(version)
            return tuple(gone)

    def drop_staging(self, keep: str | None = None) -> None:
        """Removes unfinished versions but `keep`: their space goes back. Raises OSError."""
        with self._locked():
            for folder in sorted((self.folder / STAGING).glob("*")):
                if folder.name != keep:
                    throw_away(folder, self.folder / TRASH)

    def remove(self) -> None:
        """Takes the whole model away, every version of it. Raises OSError."""
        with self._locked():
            throw_away(self.folder, self.folder.parent / TRASH)
        with contextlib.suppress(OSError):
            (self.folder.parent / TRASH).rmdir()

    def recover(self) -> None:
        """Puts right what a cut left behind; called at start by whoever uses the store. Raises OSError."""
        if self.folder.is_dir():
            with self._locked():
                self._mend()
                for folder in sorted((self.folder / TRASH).glob("*")):
                    shutil.rmtree(folder, ignore_errors=True)

    # ---- how

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_folder(self.folder)
        with locked(self.folder / LOCK):
            yield

    def _mend(self) -> None:
        """`active` leads somewhere if anything can, and `previous` to the version before it or nowhere."""
        active, previous = self.active, self.previous
        if active is not None and previous is not None and previous != active:
            return
        history = self._history()
        if active is None:
            best = previous or next((version for version in history if self.path(version).is_dir()), None)
            if best is None:
                return
            point(self.folder / ACTIVE, best)
            active = best
        if previous is None or previous == active:
            before = next((name for name in history if name != active and self.path(name).is_dir()), None)
            if before is not None:
                point(self.folder / PREVIOUS, before)
            elif os.path.lexists(self.folder / PREVIOUS):
                (self.folder / PREVIOUS).unlink()
                sync_folder(self.folder)

    def _history(self) -> list[str]:
        """Versions that were active once and not refused since, newest first."""
        entries = self.journal.read()
        bad = {entry.version for entry in entries if entry.event == "refuse"}
        names: list[str] = []
        for entry in reversed(entries):
            if entry.event in ("activate", "roll_back"):
                names += [entry.version, entry.replaced] if entry.event == "activate" else [entry.version]
        return [name for name in dict.fromkeys(names) if digests.is_name(name) and name not in bad]

    def _is_whole(self, folder: Path, wanted: Mapping[str, FileDigest]) -> bool:
        try:
            digests.check_files(folder, wanted)
        except ModelError:
            return False
        return True

    def _try_note(self, event: Event, version: str, *, release: int = 0, replaced: str = "", reason: str = "") -> bool:
        try:
            self.journal.note(event, version, release=release, replaced=replaced, reason=reason)
        except OSError:
            return False
        return True
