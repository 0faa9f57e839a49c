"""Attachments of replies that libzmq still holds because their clients have not read them: its ceiling counts messages,
not bytes. One book for all doors; owns nothing but the count, of which pyzmq's trackers say what has left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import zmq

from edged.protocol.limits import WireLimits

SMALL_BYTES = 64 * 1024  # replies with fewer are not booked: the number of messages bounds them well enough


@dataclass(slots=True)
class _Held:
    client: Hashable
    size_bytes: int
    since_s: float
    trackers: tuple[zmq.MessageTracker, ...]

    def is_read(self) -> bool:
        return all(tracker.done for tracker in self.trackers)


class Unread:
    """`limits` may be replaced while it lives."""

    def __init__(self, limits: WireLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits, self._clock = limits, clock
        self._held: tuple[_Held, ...] = ()  # oldest first; replaced, not changed: the guard's thread reads it too

    @property
    def total_bytes(self) -> int:
        """Of all clients."""
        return sum(held.size_bytes for held in self._held if not held.is_read())

    def bytes_of(self, client: Hashable) -> int:
        """Of this client."""
        return sum(held.size_bytes for held in self._held if held.client == client and not held.is_read())

    def has_room(self, client: Hashable, size_bytes: int) -> bool:
        """Whether a reply with attachments of this size may be sent to it now: one may always lie there alone."""
        if size_bytes < SMALL_BYTES:
            return True
        self._held = tuple(held for held in self._held if not held.is_read())
        mine = self.bytes_of(client)
        return not (
            (mine and mine + size_bytes > self.limits.max_unread_bytes)
            or (self._held and self.total_bytes + size_bytes > self.limits.max_pending_bytes)
        )

    def book(self, client: Hashable, frames: tuple[bytes, ...]) -> tuple[bytes | zmq.Frame, ...]:
        """These attachments as what is to be sent, uncopied and counted until libzmq has written them out."""
        size_bytes = sum(map(len, frames))
        if size_bytes < SMALL_BYTES:
            return frames
        tracked = tuple(zmq.Frame(frame, track=True, copy=False, copy_threshold=0) for frame in frames)
        trackers = tuple(frame.tracker for frame in tracked if frame.tracker is not None)
        self._held = (*self._held, _Held(client, size_bytes, self._clock(), trackers))
        return tracked

    def stale(self) -> Hashable | None:
        """Whoever has left something unread longest, and for longer than `slow_consumer_s`, once half of all the room
        is used up; else None."""
        held = [each for each in self._held if not each.is_read()]
        if 2 * sum(each.size_bytes for each in held) <= self.limits.max_pending_bytes:
            return None
        if self._clock() - held[0].since_s <= self.limits.slow_consumer_s:
            return None
        return held[0].client
