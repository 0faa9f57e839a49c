"""Questions that the daemon itself asks of an engine, beside what clients ask: their numbers and who waits for them.

Owns the waiting futures. A request number below PRIVATE_RID is a client's.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from typing import Any

from edged.errors import REQUEST_ERRORS, EngineLost, Internal
from edged.protocol import engine as wire
from edged.protocol.messages import Generation, parse_request
from edged.serving.engine_link import EngineLink

PRIVATE_RID = 2**62


class PrivateAsks:
    """Asks engines and waits for their answers."""

    def __init__(self) -> None:
        self._rids = itertools.count(PRIVATE_RID)
        self._waiting: dict[int, asyncio.Future[wire.Done | wire.Result]] = {}

    async def ask(self, link: EngineLink, op: str, **fields: Any) -> wire.Done | wire.Result:
        """One request with the public fields of `op`, e.g. `ask(link, "chat", messages=[...], max_tokens=8)`.

        Raises RequestError: what the engine refused it with, EngineLost when its process ended. Cancelled, the engine
        is told to stop.
        """
        rid = next(self._rids)
        request = parse_request({"v": 1, "id": 1, "op": op, **fields})
        assert not isinstance(request, Generation) or not request.stream, "nobody would read the deltas"
        body = request.model_dump(exclude={"v", "id", "op", "model", "deadline_ms", "stream"})
        answer: asyncio.Future[wire.Done | wire.Result] = asyncio.get_running_loop().create_future()
        self._waiting[rid] = answer
        try:
            link.submit(wire.Start(rid, os.getuid(), b"edged", op, body, time.monotonic(), None, stream=False))
            return await answer
        finally:
            if not answer.done() or answer.cancelled():
                link.stop_request(rid, "gone")
            del self._waiting[rid]

    def take(self, message: wire.ToFront) -> bool:
        """Whether a message answers a question of ours, or belongs to one that is over."""
        rid = getattr(message, "rid", 0)
        waiting = self._waiting.get(rid)
        if waiting is not None and not waiting.done():
            if isinstance(message, wire.Done | wire.Result):
                waiting.set_result(message)
            elif isinstance(message, wire.Failed):
                kind = REQUEST_ERRORS.get(message.code, Internal)
                waiting.set_exception(kind(message.message, retry_after_ms=message.retry_after_ms))
        return rid >= PRIVATE_RID

    def lost(self, rids: set[int], why: str) -> None:
        """The engine that had these ended."""
        for rid in rids & self._waiting.keys():
            if not self._waiting[rid].done():
                self._waiting[rid].set_exception(EngineLost(f"the engine ended ({why})"))
