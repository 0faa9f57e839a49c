"""Requests that another part of the daemon answers in its own time (`update.*`). Owns the tasks that wait for it.

Who asked may leave or cancel: then nobody waits any more, and the work itself goes on.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from edged.errors import Internal, OwnerError, RequestError, Unavailable

log = logging.getLogger(__name__)


class Errands:
    """`done(rid, fields)` and `fail(rid, error)` end a request; never both, never twice."""

    def __init__(self, done: Callable[[int, dict[str, Any]], None], fail: Callable[[int, RequestError], None]) -> None:
        self._done, self._fail = done, fail
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def begin(self, rid: int, work: Awaitable[dict[str, Any]]) -> None:
        """Wait for `work` on behalf of a request."""
        self._tasks[rid] = asyncio.ensure_future(self._run(rid, work))

    def leave(self, rid: int) -> bool:
        """Nobody waits for this one any more; False when it is none of these."""
        task = self._tasks.pop(rid, None)
        if task is not None:
            task.cancel()
        return task is not None

    def leave_all(self, why: str) -> None:
        """The daemon stops: each one is told."""
        for rid in list(self._tasks):
            self.leave(rid)
            self._fail(rid, Unavailable(why))

    async def _run(self, rid: int, work: Awaitable[dict[str, Any]]) -> None:
        try:
            fields = await work
        except RequestError as error:
            self._end(rid, functools.partial(self._fail, rid, error))
        except (OwnerError, OSError) as error:  # its words may hold paths: they are for the log
            log.error("%s", error)
            sorry = Unavailable("the box cannot do that now; its log says why", retry_after_ms=60_000)
            self._end(rid, functools.partial(self._fail, rid, sorry))
        except Exception:
            log.exception("an errand failed rid=%d", rid)
            ours = Internal("edged has a bug here; its log has the details")
            self._end(rid, functools.partial(self._fail, rid, ours))
        else:
            self._end(rid, functools.partial(self._done, rid, fields))

    def _end(self, rid: int, how: Callable[[], None]) -> None:
        if self._tasks.pop(rid, None) is not None:
            how()
