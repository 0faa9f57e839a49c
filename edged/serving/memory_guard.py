"""Keeps the front's memory bounded against messages that never end: libzmq holds their frames and tells nobody.

MAXMSGSIZE bounds a frame, not how many of them a message has, and an unfinished message is invisible from outside. So
the process's own memory is looked at while anybody is connected, and above the ceiling connections are cut, those first
that have never sent a whole message. Owns its timer; asks nothing of the machine while nobody is connected.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Callable
from typing import Protocol

from edged.serving.door import Client

log = logging.getLogger(__name__)

LOOK_S = 0.1
CLOSE_LOOK_S = 0.02  # from half of the ceiling on
SETTLED_S = 5.0  # what is still there so long after the last connection was cut is the allocator's


class Connections(Protocol):
    """The doors, as far as this needs them. Each cut returns how many connections it ended."""

    on_accept: Callable[[], None]

    @property
    def connections(self) -> int: ...

    def cut_silent(self) -> int: ...

    def cut_clients(self, spare: Callable[[Client], bool]) -> int: ...


class MemoryGuard:
    """`rss_bytes()` is this process's resident memory; `is_busy(client)` whether a request of its is live."""

    def __init__(
        self,
        doors: Connections,
        ceiling_bytes: int,
        rss_bytes: Callable[[], int],
        is_busy: Callable[[Client], bool],
    ) -> None:
        self._doors, self._ceiling_bytes = doors, ceiling_bytes
        self._rss_bytes, self._is_busy = rss_bytes, is_busy
        self._timer: asyncio.TimerHandle | None = None
        self._step = 0
        self._was_cut = False
        self._last_bytes = 0
        self._alone_since_s: float | None = None
        self._kept_bytes = 0  # the allocator's: no reason to cut anybody
        self.cuts = self._alarms = 0
        doors.on_accept = self._wake

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._timer = None
        rss_bytes = self._rss_bytes()
        too_much = rss_bytes > max(self._ceiling_bytes, self._kept_bytes + self._ceiling_bytes // 2)
        if too_much:
            if self._was_cut:  # what was freed stays with the allocator unless it is asked
                _trim()
                self._was_cut, rss_bytes = False, self._rss_bytes()
            elif rss_bytes >= self._last_bytes:  # while it falls, what was cut is still being given back
                self._cut(rss_bytes)
        else:
            self._step = 0
        self._last_bytes = rss_bytes
        self._note_kept(rss_bytes, too_much=too_much)
        if self._doors.connections or too_much:
            near = rss_bytes > self._ceiling_bytes // 2
            self._timer = asyncio.get_running_loop().call_later(CLOSE_LOOK_S if near else LOOK_S, self._look)

    def _cut(self, rss_bytes: int) -> None:
        """Each step cuts more than the one before: the silent, then the idle too, then all."""
        ended = 0
        while not ended:
            ended = self._doors.cut_silent()
            if self._step:
                ended += self._doors.cut_clients(self._is_busy if self._step == 1 else lambda client: False)
            if self._step == 2:
                break
            self._step += 1
        self.cuts += ended
        self._was_cut = True
        self._alarms += 1
        if self._alarms.bit_count() == 1:  # 1, 2, 4, 8 …: told, and the log not filled
            log.error("memory rss_mb=%d above front_memory_bytes, connections cut=%d", rss_bytes >> 20, self.cuts)

    def _note_kept(self, rss_bytes: int, *, too_much: bool) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._doors.connections or not too_much:
            self._alone_since_s = None
        elif self._alone_since_s is None:
            self._alone_since_s = now_s
        elif now_s - self._alone_since_s > SETTLED_S:
            log.error("memory rss_mb=%d above front_memory_bytes with nobody connected", rss_bytes >> 20)
            self._kept_bytes = rss_bytes


def _trim() -> None:
    """Give what glibc keeps back to the machine; other C libraries have no such call and need none."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
