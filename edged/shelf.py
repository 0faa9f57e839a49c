"""Which models are on this box's disk, what one needs in memory, and what is free: the front's own look at both."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from edged.errors import HardwareError, OwnerError
from edged.hardware.budget import LEAST_CONTEXT_TOKENS, Reserve, weights_before_load
from edged.hardware.memory import process_rss, read_memory
from edged.protocol.shared_ledger import HOST, Row, SharedLedger
from edged.store.any_model import read_any
from edged.store.models import FoundModel, find_model, installed

log = logging.getLogger(__name__)

ENGINE_BYTES = 96 * 2**20
"""What an engine process takes beside weights and KV: Python and the native libraries. Measured with the nano model:
67 MiB on x86-64."""
LOOK_AGAIN_S = 1.0


class Shelf:
    """Looks at the disk at most once in LOOK_AGAIN_S for each name."""

    def __init__(self, state: Path, ledger: SharedLedger, reserve: Reserve) -> None:
        self._state, self._ledger, self._reserve = state, ledger, reserve
        self._row: int | None = None  # of the ledger, while something is asked back
        self._seen: dict[str, tuple[float, FoundModel | None]] = {}

    def find(self, name: str) -> tuple[str, Path, str] | None:
        """The installed model of that name or alias: its own name, folder and version. Never by a path."""
        seen_s, found = self._seen.get(name, (0.0, None))
        if time.monotonic() - seen_s > LOOK_AGAIN_S:
            if len(self._seen) > 256:  # names come from clients
                self._seen.clear()
            found = self._look(name)
            self._seen[name] = (time.monotonic(), found)
        return (found.name, found.folder, found.version or "") if found else None

    def names(self) -> list[str]:
        """Every installed model."""
        return [model.name for model in installed(self._state)]

    def needed_bytes(self, folder: Path) -> int:
        """Weights, an engine process and the smallest context. Raises ModelError."""
        manifest = read_any(folder)
        weights = weights_before_load(manifest.weights_bytes, manifest.packed_bytes)
        return weights.total_bytes + manifest.kv_bytes_per_token * LEAST_CONTEXT_TOKENS + ENGINE_BYTES

    def free_bytes(self) -> int:
        """Free memory without the reserve and without what engines have promised and not taken yet; 0 when it cannot
        be read."""
        try:
            reading = read_memory()
        except HardwareError as error:
            log.error("memory cannot be read: %s", error)
            return 0
        untouched = 0
        for row in self._ledger.rows():
            if row.pool == HOST:
                rss = process_rss(row.pid)
                untouched += max(0, row.promised_bytes - (rss.anon_bytes or 0 if rss else 0))
        return max(0, reading.headroom_bytes - self._reserve.of(reading.usable_total_bytes) - untouched)

    def ask_back(self, needed_bytes: int) -> None:
        """Have the engines give back idle KV, and book no more, for a model that needs so much; 0: no longer."""
        if needed_bytes:
            self._row = self._ledger.free_row() if self._row is None else self._row
            self._ledger.write(self._row, Row(os.getpid(), 0, 0, wanted_bytes=needed_bytes))
        elif self._row is not None:
            self._ledger.clear(self._row)
            self._row = None

    def _look(self, name: str) -> FoundModel | None:
        if "/" in name or name.startswith("."):
            return None
        try:
            return find_model(name, self._state)
        except OwnerError as error:
            log.debug("model not found: %s", error)
            return None
