"""What could not be sent to one client yet. Owned by the door; bounded in bytes, deltas of one request merged.

A client that left too much unread loses the parts of its answers, never the last word on a request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import zmq

from edged.protocol.codec import pack

Envelope = tuple[bytes, ...]
Frames = tuple[bytes | zmq.Frame, ...]
MESSAGE_OVERHEAD_BYTES = 128  # what a queued message costs beside its bytes, roughly
LAST_WORDS = ("done", "result", "error")


@dataclass(slots=True)
class _Waiting:
    """`data` once it was tried: packed then, and merged into no more."""

    envelope: Envelope
    message: dict[str, Any]
    cost_bytes: int
    data: bytes = b""
    frames: Frames = ()
    is_last_word: bool = False


@dataclass(slots=True)
class Outbox:
    """Messages in order. `blocked_since_s` is when the client last stopped reading, None while it reads."""

    limit_bytes: int
    cost_bytes: int = 0
    blocked_since_s: float | None = None
    _waiting: deque[_Waiting] = field(default_factory=deque)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(
        self,
        envelope: Envelope,
        message: dict[str, Any],
        size_bytes: int,
        now_s: float,
        frames: Frames = (),
    ) -> bool:
        """Queue a message of `size_bytes`, packed, and its attachments; False when the client has now been left more
        than it may."""
        if self.blocked_since_s is None:
            self.blocked_since_s = now_s
        last = self._waiting[-1] if self._waiting else None
        if last and not last.data and _mergeable(last.message, message):
            cost = len(message["text"].encode())
            last.message = {**last.message, "text": last.message["text"] + message["text"]}
            last.cost_bytes += cost
        else:
            cost = MESSAGE_OVERHEAD_BYTES + size_bytes + sum(map(len, frames))
            is_last_word = message["ev"] in LAST_WORDS
            self._waiting.append(_Waiting(envelope, message, cost, frames=frames, is_last_word=is_last_word))
        self.cost_bytes += cost
        return self.cost_bytes <= self.limit_bytes

    def flush(self, send: Callable[[Envelope, bytes, Frames], bool], now_s: float) -> bool:
        """Send in order until `send` says that the client does not take more; True when it took something."""
        took = False
        while self._waiting:
            first = self._waiting[0]
            if not first.data:
                first.data, first.message = pack(first.message), {}
            if not send(first.envelope, first.data, first.frames):
                return took
            took = True
            self._waiting.popleft()
            self.cost_bytes -= first.cost_bytes
            self.blocked_since_s = now_s  # it read something: its time starts anew
        self.blocked_since_s = None
        return took

    def first_envelope(self) -> Envelope:
        """Of the message that waits longest."""
        return self._waiting[0].envelope if self._waiting else ()

    def keep_last_words(self) -> None:
        """Forget the parts of answers; how each request ended is still told when the client reads again."""
        self._waiting = deque(waiting for waiting in self._waiting if waiting.is_last_word)
        self.cost_bytes = sum(waiting.cost_bytes for waiting in self._waiting)

    def clear(self) -> None:
        """Forget everything: the client is gone."""
        self._waiting.clear()
        self.cost_bytes = 0
        self.blocked_since_s = None


def _mergeable(last: dict[str, Any], message: dict[str, Any]) -> bool:
    return (
        last.get("ev") == message.get("ev") == "delta"
        and last.get("id") == message.get("id")
        and "logprobs" not in last
        and "logprobs" not in message
    )
