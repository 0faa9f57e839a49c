"""The other engines of this box: what they have promised of the same memory, and telling them what we did.

Owns this engine's row in the shared ledger. Alone (no ledger) it answers zero to everything.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator

from edged.hardware.memory import process_rss
from edged.protocol.shared_ledger import CARD, HOST, Row, SharedLedger

MICRO = 1e6
PATIENCE_S = 0.05  # for a lock that is held for microseconds


def anonymous_bytes(pid: int | None = None) -> int:
    """A process's memory that the kernel cannot drop; 0 when it is gone."""
    rss = process_rss(pid)
    return rss.anon_bytes or 0 if rss else 0


class Neighbours:
    """`fixed_bytes`: our weights and work space. `on_card`: our KV is a card's; `unified`: that is the box's memory."""

    def __init__(
        self, ledger: SharedLedger | None = None, number: int = 0, taken: Callable[[int], int] = anonymous_bytes
    ) -> None:
        self._ledger, self._number, self._taken_by = ledger, number, taken
        self._taken: dict[int, int] = {}
        self._mine = Row(0, 0, 0)
        self.fixed_bytes = 0
        self.on_card = self.unified = False

    def look(self) -> None:
        """Note what the others have taken by now; call together with a reading of the free memory."""
        self._taken = {row.pid: row.promised_bytes if row.at_once else self._taken_by(row.pid) for row in self._rows()}

    def untouched_bytes(self) -> int:
        """What the others have promised and had not taken from the free memory at the last look."""
        return sum(max(0, row.promised_bytes - self._taken.get(row.pid, 0)) for row in self._rows())

    def kv_bytes(self) -> int:
        """KV that the others have booked: it may come free."""
        return sum(row.kv_bytes for row in self._rows())

    def wanted_bytes(self, before_s: float | None = None) -> int:
        """KV that the others wait for; with `before_s` only for requests that came before (of two at once: one)."""
        ours = (math.inf, 0) if before_s is None else (int(before_s * MICRO), os.getpid())
        return sum(row.wanted_bytes for row in self._rows() if (row.wanted_us, row.pid) < ours)

    def promise(self, kv_bytes: int, wanted_bytes: int = 0, wanted_since_s: float = 0.0) -> None:
        """Tell the others what we have booked, what we wait for, and for how long we have."""
        if self._ledger is None:
            return
        pool = CARD if self.on_card and not self.unified else HOST
        since_us = int(wanted_since_s * MICRO)
        row = Row(os.getpid(), self.fixed_bytes, kv_bytes, wanted_bytes, since_us, pool, self.on_card)
        if row != self._mine:
            self._mine = row
            self._ledger.write(self._number, row)

    @contextlib.contextmanager
    def booking(self, patience_s: float = PATIENCE_S) -> Iterator[bool]:
        """No other engine decides between our decision and our promise; False when it cannot be had now."""
        if self._ledger is None:
            yield True
        else:
            with self._ledger.locked(patience_s) as had:
                yield had

    def _rows(self) -> list[Row]:
        """The others in our pool."""
        if self._ledger is None:
            return []
        pool = CARD if self.on_card and not self.unified else HOST
        return [row for row in self._ledger.rows(but=self._number) if row.pool == pool]
