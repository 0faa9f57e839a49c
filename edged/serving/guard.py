"""Keeps the front's memory bounded against messages that never end: libzmq holds their frames and tells nobody.

MAXMSGSIZE bounds a frame, not how many of them a message has, and an unfinished message is invisible from outside. So a
thread looks at the process's own memory while anybody is connected, and cuts connections above the ceiling. It is a
thread because the event loop may be busy with requests while libzmq goes on reading, a gigabyte and more in a second.
Owns that thread.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from edged.allocator import give_back
from edged.serving.door import Client

log = logging.getLogger(__name__)

LOOK_S = 0.025  # while anybody is connected
CLOSE_LOOK_S = 0.005  # from half of a ceiling on
NEWS_S = 0.002  # the least between two looks
ALONE_LOOK_S = 1.0
SETTLED_S = 5.0  # what is still there so long after the last connection was cut is the allocator's
FLOODING_BYTES = 16 * 1024  # unread in the kernel: this peer sends faster than libzmq reads


class Connections(Protocol):
    """The doors, as far as this needs them; its thread calls these. Each cut returns how many connections it ended.

    `on_first` is called by the event loop when somebody is connected again after nobody was.
    """

    on_first: Callable[[], None]

    @property
    def connections(self) -> int: ...

    @property
    def news_fds(self) -> Sequence[int]: ...

    def cut_flooding(self, unread_bytes: int) -> int: ...

    def cut_silent(self) -> int: ...

    def cut_clients(self, spare: Callable[[Client], bool]) -> int: ...


class Guard:
    """`rss_bytes()` is this process's resident memory beside the attachments that have ceilings of their own;
    `is_busy(client)` says whether a request of its is live.

    Above `ceiling_bytes` those are cut that send faster than they are read and those that have never sent a whole
    message, then the idle too, then all.
    """

    def __init__(
        self,
        doors: Connections,
        ceiling_bytes: int,
        rss_bytes: Callable[[], int],
        is_busy: Callable[[Client], bool],
    ) -> None:
        self._doors, self._ceiling_bytes = doors, ceiling_bytes
        self._rss_bytes, self._is_busy = rss_bytes, is_busy
        self._idle_cut = False  # since memory was short; the next step is all
        self._was_cut = False
        self._last_bytes = 0
        self._alone_since_s: float | None = None
        self._kept_bytes = 0  # the allocator's: no reason to cut anybody
        self.cuts = self._alarms = 0
        self._stop = os.eventfd(0)
        self._first = os.eventfd(0, os.EFD_NONBLOCK)
        self._news = select.poll()
        self._thread = threading.Thread(target=self._run, name="guard", daemon=True)

    def start(self) -> None:
        """Once the doors are open, from the thread of the event loop, whose sockets theirs are."""
        for fd in (self._stop, self._first, *self._doors.news_fds):
            self._news.register(fd, select.POLLIN)
        self._doors.on_first = self._somebody_came
        self._thread.start()

    def close(self) -> None:
        """Before the doors are closed."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join()
        self._doors.on_first = lambda: None
        os.close(self._stop)
        os.close(self._first)

    def _somebody_came(self) -> None:
        """The event loop may have read the news before this thread, asleep for long, has seen that there were any."""
        os.eventfd_write(self._first, 1)

    def _run(self) -> None:
        wait_s = ALONE_LOOK_S
        while self._stop not in (ready := [fd for fd, _ in self._news.poll(wait_s * 1000)]):
            if self._first in ready:
                os.eventfd_read(self._first)
            wait_s = self._look()
            time.sleep(NEWS_S)  # news stay news until the event loop has read them

    def _look(self) -> float:
        """Look, cut whom it must be; in how many seconds to look again."""
        rss_bytes = self._rss_bytes()
        too_much = rss_bytes > max(self._ceiling_bytes, self._kept_bytes + self._ceiling_bytes // 2)
        if too_much:
            self._relieve(rss_bytes)
        else:
            self._idle_cut = False
        self._last_bytes = rss_bytes
        self._note_kept(rss_bytes, too_much=too_much)
        if not self._doors.connections and not too_much:
            return ALONE_LOOK_S
        return CLOSE_LOOK_S if rss_bytes > self._ceiling_bytes // 2 else LOOK_S

    def _relieve(self, rss_bytes: int) -> None:
        """Each step cuts more than the one before: the flooding and the silent, then the idle too, then all."""
        ended = self._doors.cut_flooding(FLOODING_BYTES)
        rises = rss_bytes >= self._last_bytes  # while it falls, what was cut is still being given back
        if rises:
            ended += self._doors.cut_silent()
        if not ended and rises:
            if self._was_cut:  # what was freed stays with the allocator unless it is asked
                give_back()
                self._was_cut = False
                return
            if not self._idle_cut:
                self._idle_cut = True
                ended = self._doors.cut_clients(self._is_busy)
            if not ended:
                ended = self._doors.cut_clients(lambda client: False)
        if ended:
            self._was_cut = True
            self.cuts += ended
            self._alarms += 1
            if self._alarms.bit_count() == 1:  # 1, 2, 4, 8 …: told, and the log not filled
                log.error("memory rss_mb=%d above front_memory_bytes, connections cut=%d", rss_bytes >> 20, self.cuts)

    def _note_kept(self, rss_bytes: int, *, too_much: bool) -> None:
        now_s = time.monotonic()
        if self._doors.connections or not too_much:
            self._alone_since_s = None
        elif self._alone_since_s is None:
            self._alone_since_s = now_s
        elif now_s - self._alone_since_s > SETTLED_S:
            log.error("memory rss_mb=%d above front_memory_bytes with nobody connected", rss_bytes >> 20)
            self._kept_bytes = rss_bytes
