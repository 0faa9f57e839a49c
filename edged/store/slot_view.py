"""What lies in one model's slots: read, never changed. The layout is told in slots.py."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from edged.store import digests
from edged.store.durable import StoreError
from edged.store.journal import Journal

ACTIVE, PREVIOUS, STAGING, TRASH, LOCK = "active", "previous", ".staging", ".trash", ".lock"


class SlotView:
    """One model's versions. `now_s` (wall-clock seconds) dates the journal's lines."""

    def __init__(self, state: Path, model: str, now_s: Callable[[], float] = time.time) -> None:
        if not digests.is_name(model):
            raise StoreError(f"{model[:80]!r} is no name of a model: letters, digits, '.', '_', '-', at most 64")
        self.model = model
        self.folder = state / "models" / model
        self.journal = Journal(self.folder, now_s)

    @property
    def active(self) -> str | None:
        return self._target(ACTIVE)

    @property
    def previous(self) -> str | None:
        return self._target(PREVIOUS)

    def versions(self) -> tuple[str, ...]:
        """Every staged version, whole by construction, sorted by name."""
        if not self.folder.is_dir():
            return ()
        names = [path.name for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()]
        return tuple(sorted(name for name in names if digests.is_name(name)))

    def path(self, version: str) -> Path:
        """Where the version lies, there or not. Raises StoreError for what is no version's name."""
        if not digests.is_name(version):
            raise StoreError(f"{version[:80]!r} is no version: letters, digits, '.', '_', '-', at most 64")
        return self.folder / version

    def staged_digest(self, version: str) -> str:
        """The digest that was given when the version was last staged; empty when it was not. Raises OSError."""
        noted = [entry for entry in self.journal.read() if entry.event == "staged" and entry.version == version]
        return noted[-1].digest if noted else ""

    def release_of(self, version: str) -> int:
        """The release counter it was staged or activated with last; 0 when that is not known. Raises OSError."""
        noted = [entry.release for entry in self.journal.read() if entry.version == version and entry.release]
        return noted[-1] if noted else 0

    def _target(self, link: str) -> str | None:
        """The version a link leads to; None when there is none, or it leads to anything but a version that is there."""
        try:
            name = os.readlink(self.folder / link)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL, errno.ENOTDIR):
                return None
            raise
        return name if digests.is_name(name) and (self.folder / name).is_dir() else None
