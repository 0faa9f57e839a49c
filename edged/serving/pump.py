"""A ZeroMQ socket on the asyncio loop: calls a function for each message, a bounded number at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import zmq

from edged.protocol.sockets import has_message

BURST = 64  # messages taken before other work of the loop gets its turn…
BURST_FRAMES = 4096  # …or as many frames, of a message that has more than it may
SAFETY_S = 1.0  # the socket's fd is edge-triggered: a rare second look costs nothing and loses nothing


class Pump:
    """Owns the reading side of `socket`. `kick` must be called after sending on it: sending can eat the fd's edge.

    Of a message with more than `most_frames` the first ones are given on, one too many; the rest is dropped.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        on_message: Callable[[Sequence[zmq.Frame]], None],
        most_frames: int = 64,
    ) -> None:
        self._socket = socket
        self._on_message = on_message
        self._most_frames = most_frames
        self._frames: list[zmq.Frame] = []  # of a message whose reading was interrupted
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._scheduled = False
        self._closed = False
        self._loop.add_reader(self._fd, self._drain)
        self._look_again()

    def kick(self) -> None:
        """Take soon what is there, whatever the fd says."""
        if self._has_message():
            self._go_on()

    def close(self) -> None:
        """Stop reading; the socket stays the caller's."""
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._timer.cancel()

    def _look_again(self) -> None:
        self.kick()
        self._timer = self._loop.call_later(SAFETY_S, self._look_again)

    def drain_all(self) -> None:
        """Take every message that is there now, however many."""
        while self._has_message() and self._take_one():
            pass

    def _has_message(self) -> bool:
        return not self._closed and has_message(self._socket)

    def _go_on(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        self._drain()

    def _drain(self) -> None:
        for _ in range(BURST):
            if not self._take_one():
                return
        self._go_on()

    def _take_one(self) -> bool:
        if self._closed:
            return False
        frames = self._frames
        for _ in range(BURST_FRAMES):
            try:
                frame = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            if len(frames) <= self._most_frames:
                frames.append(frame)
            if not frame.more:
                self._frames = []
                self._on_message(frames)
                return True
        self._go_on()  # its rest in the next turn
        return False
