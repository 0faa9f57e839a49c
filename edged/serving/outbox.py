"""What could not be sent to one client yet. Owned by the door; bounded in bytes, deltas of one request merged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Envelope = tuple[bytes, ...]
MESSAGE_OVERHEAD_BYTES = 128  # what a queued message costs beside its text, roughly


@dataclass(slots=True)
class _Waiting:
    envelope: Envelope
    message: dict[str, Any]
    cost_bytes: int


@dataclass(slots=True)
class Outbox:
    """Messages in order. `blocked_since_s` is when the client last stopped reading, None while it reads."""

    limit_bytes: int
    cost_bytes: int = 0
    blocked_since_s: float | None = None
    _waiting: deque[_Waiting] = field(default_factory=deque)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, envelope: Envelope, message: dict[str, Any], now_s: float) -> bool:
        """Queue a message; False when the client has now been left more than it may."""
        if self.blocked_since_s is None:
            self.blocked_since_s = now_s
        cost = MESSAGE_OVERHEAD_BYTES + len(message.get("text", ""))
        last = self._waiting[-1] if self._waiting else None
        if last and _mergeable(last.message, message):
            last.message = {**last.message, "text": last.message["text"] + message["text"]}
            cost -= MESSAGE_OVERHEAD_BYTES
            last.cost_bytes += cost
        else:
            self._waiting.append(_Waiting(envelope, message, cost))
        self.cost_bytes += cost
        return self.cost_bytes <= self.limit_bytes

    def flush(self, send: Callable[[Envelope, dict[str, Any]], bool], now_s: float) -> None:
        """Send in order until `send` says that the client does not take more."""
        while self._waiting:
            first = self._waiting[0]
            if not send(first.envelope, first.message):
                return
            self._waiting.popleft()
            self.cost_bytes -= first.cost_bytes
            self.blocked_since_s = now_s  # it read something: its time starts anew
        self.blocked_since_s = None

    def clear(self) -> None:
        """Forget everything: the client is gone or was told `slow_consumer`."""
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
