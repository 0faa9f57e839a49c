"""Counts the starts of a version that did not end well: three in a row, and the version before it is used again.

Owns `STATE/update/starts-<model>.json`. Counted before a start and cleared after it, so that a box that loses power or
restarts while the model loads counts too.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from edged.store.durable import StoreError, make_folder, write_file
from edged.store.slots import Slots

MOST_FAILED = 3


class Starts:
    """For one model. A disk that cannot be written must not keep a model from starting: then nothing is counted."""

    def __init__(self, state: Path, slots: Slots) -> None:
        self._path = state / "update" / f"starts-{slots.model}.json"
        self._slots = slots

    def begin(self) -> str | None:
        """Call before the active version is started. Goes back if it failed three times; returns why it did."""
        version = self._slots.active
        if version is None:
            return None
        failed = self._failed(version)
        if failed < MOST_FAILED:
            self._write(version, failed + 1)
            return None
        reason = f"{version} did not start {failed} times in a row"
        with contextlib.suppress(StoreError):  # nothing to go back to: it is tried again
            self._slots.roll_back(reason, self._slots.release_of(version))
            self._write(self._slots.active or "", 1)
            return reason
        return None

    def forget(self) -> None:
        """Call when the active version has answered, or when its failing to start was no fault of its own."""
        version = self._slots.active
        if version is not None and self._failed(version):
            self._write(version, 0)

    def _failed(self, version: str) -> int:
        try:
            value = json.loads(self._path.read_bytes())
            return int(value["failed"]) if value["version"] == version else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0

    def _write(self, version: str, failed: int) -> None:
        with contextlib.suppress(OSError):
            make_folder(self._path.parent)
            write_file(self._path, json.dumps({"version": version, "failed": failed}).encode())
