"""Who waits at a plain model: each client in order, all clients in turn. Owns the waiting jobs; runs nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from edged.engine.plain.job import Job, Key
from edged.errors import Busy


class Line:
    """At most `limit` jobs, `limit_per_client` of one client."""

    def __init__(self, limit: int, limit_per_client: int) -> None:
        self._limit, self._limit_per_client = limit, limit_per_client
        self._of: dict[bytes, deque[Job]] = {}  # the client whose turn it is comes first
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Job]:
        return iter([job for jobs in self._of.values() for job in jobs])

    def check_room(self, client: bytes, retry_ms: int) -> None:
        """Raises Busy when this client, or everybody together, waits for as much as may be."""
        if self._count >= self._limit:
            raise Busy(f"{self._count} requests wait for this model, the most that may", retry_after_ms=retry_ms)
        if len(self._of.get(client, ())) >= self._limit_per_client:
            raise Busy(
                f"this client has {self._limit_per_client} requests waiting, the most it may have",
                retry_after_ms=retry_ms,
            )

    def add(self, job: Job) -> None:
        self._of.setdefault(job.start.client, deque()).append(job)
        self._count += 1

    def remove(self, job: Job) -> None:
        """It waits no longer, whatever the reason."""
        mine = self._of.get(job.start.client)
        if mine is None or job not in mine:
            return
        mine.remove(job)
        self._count -= 1
        if not mine:
            del self._of[job.start.client]

    def take(self, key: Key | None) -> tuple[Job, Any] | None:
        """The next item, from the first client whose oldest request has one of `key` (None: any); that client then
        goes to the end. None when nobody has one."""
        for client, jobs in self._of.items():
            job = jobs[0]
            item = job.waiting[0]
            if key is None or job.task.key(item) == key:
                job.waiting.popleft()
                self._of[client] = self._of.pop(client)
                if not job.waiting:
                    self.remove(job)
                return job, item
        return None
