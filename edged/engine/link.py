"""The engine's end of the private channel: never waits for the front.

What cannot be sent now is kept and sent later; deltas of one request are merged meanwhile, so what is kept is bounded
by the answers themselves.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import zmq

from edged.protocol import engine as wire

HWM = 65536


class FrontLink:
    """Owns the socket."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self._socket.setsockopt(zmq.SNDHWM, HWM)
        self._socket.setsockopt(zmq.RCVHWM, HWM)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.connect(endpoint)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._unsent: deque[wire.ToFront] = deque()

    def send(self, message: wire.ToFront) -> None:
        """Send now, or as soon as the front reads again."""
        if self._unsent or not self._try(message):
            last = self._unsent[-1] if self._unsent else None
            if isinstance(message, wire.Delta) and isinstance(last, wire.Delta) and _mergeable(last, message):
                self._unsent[-1] = replace(last, text=last.text + message.text)
            else:
                self._unsent.append(message)

    def receive(self, timeout_s: float) -> list[wire.ToEngine]:
        """All messages that are there; waits up to `timeout_s` for the first."""
        while self._unsent and self._try(self._unsent[0]):
            self._unsent.popleft()
        messages = self._take()
        if not messages and timeout_s and self._poller.poll(int(timeout_s * 1000)):
            messages = self._take()
        return messages

    def _take(self) -> list[wire.ToEngine]:
        messages: list[wire.ToEngine] = []
        while True:
            try:
                messages.append(wire.decode(self._socket.recv_multipart(zmq.NOBLOCK)))  # type: ignore[arg-type]
            except zmq.Again:
                return messages

    def close(self) -> None:
        """Let what was sent leave, then close."""
        self._socket.close()
        self._context.term()

    def _try(self, message: wire.ToFront) -> bool:
        try:
            self._socket.send_multipart(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True


def _mergeable(last: wire.Delta, message: wire.Delta) -> bool:
    return last.rid == message.rid and not last.logprobs and not message.logprobs
