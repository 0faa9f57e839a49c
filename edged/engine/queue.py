"""The waiting requests: bounded, by priority with ageing, so that nothing starves. Order only; no memory arithmetic."""

from __future__ import annotations

from edged.engine.job import Waiting
from edged.errors import Busy

AGEING_S = 10.0  # waiting this long is worth one step of priority


class Queue:
    """Owned by the scheduler."""

    def __init__(self, *, limit: int, limit_per_client: int) -> None:
        self._limit, self._limit_per_client = limit, limit_per_client
        self._waiting: list[Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def check_room(self, client: bytes, retry_after_ms: int) -> None:
        """Raises Busy when a further request would pass a ceiling."""
        if len(self._waiting) >= self._limit:
            raise Busy(f"{len(self._waiting)} requests wait already", retry_after_ms=retry_after_ms)
        if sum(waiting.start.client == client for waiting in self._waiting) >= self._limit_per_client:
            raise Busy("this client has its full share of waiting requests", retry_after_ms=retry_after_ms)

    def add(self, waiting: Waiting) -> None:
        self._waiting.append(waiting)

    def in_order(self, now_s: float) -> list[Waiting]:
        """Who is next, first to last: priority 9 first, each AGEING_S of waiting worth one step, then by arrival."""
        return sorted(
            self._waiting,
            key=lambda waiting: (
                -(waiting.priority + (now_s - waiting.start.received_s) / AGEING_S),
                waiting.start.received_s,
            ),
        )

    def take(self, waiting: Waiting) -> None:
        self._waiting.remove(waiting)

    def find(self, rid: int) -> Waiting | None:
        return next((waiting for waiting in self._waiting if waiting.start.rid == rid), None)

    def overdue(self, now_s: float) -> list[Waiting]:
        """Those whose deadline has passed."""
        return [
            waiting
            for waiting in self._waiting
            if waiting.start.deadline_s is not None and waiting.start.deadline_s <= now_s
        ]
