"""The requests one connection has in flight: which reply belongs to which, and when silence has lasted too long.

No sockets here: the blocking and the asyncio connection hand in frames and the time. Owns the pending requests.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edged.client.errors import BadReply, ConnectionLost, NoReply, UsageError
from edged.protocol.codec import pack, unpack_trusted

ATTACHMENTS = "attachments"  # the client's own name for the frames behind a reply; no field on the wire has it
PING_SHARE = 0.5  # after this share of the patience, ask whether the daemon is there at all


@dataclass(slots=True, eq=False)
class Pending:
    """One request from its sending to its last reply. `patient`: any word of the daemon's counts as life, since a
    queue or a long prompt may keep it silent about this very request; otherwise the reply itself must come in time.
    `wake` is called at each reply and at the loss; whoever waits sets it."""

    id: int
    size_bytes: int
    sent_s: float
    patient: bool
    wake: Callable[[], None] = lambda: None
    replies: deque[dict[str, Any]] = field(default_factory=deque)
    heard: bool = False
    lost: bool = False


class Exchange:
    """`timeout_s` is the client's patience in seconds, for all its requests."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._pending: dict[int, Pending] = {}
        self._ids = itertools.count(1)
        self._heard_s = 0.0
        self._pinged_s = 0.0

    def open(
        self,
        request: Mapping[str, Any],
        attachments: Sequence[bytes],
        now_s: float,
        *,
        patient: bool,
    ) -> tuple[Pending, list[bytes]]:
        """A new request and the frames to send. Raises UsageError for what msgpack cannot carry."""
        number = next(self._ids)
        frames = self.frames(request, number, attachments)
        pending = Pending(number, sum(map(len, frames)), now_s, patient)
        self._pending[number] = pending
        return pending, frames

    def frames(
        self, request: Mapping[str, Any], number: int | None = None, attachments: Sequence[bytes] = ()
    ) -> list[bytes]:
        """Frames of a request; one whose replies nobody waits for takes a fresh id."""
        try:
            header = pack({**request, "id": next(self._ids) if number is None else number})
        except (TypeError, ValueError, OverflowError) as error:  # UnicodeEncodeError is a ValueError
            raise UsageError(f"the request cannot be put on the wire: {error}") from error
        return [header, *attachments]

    def deliver(self, frames: Sequence[bytes], now_s: float) -> None:
        """One message of the daemon's. Replies nobody waits for are dropped. Raises BadReply for what is no reply."""
        self._heard_s = now_s
        try:
            head = 0 if frames[0] or len(frames) == 1 else 1  # an empty delimiter may go before
            reply = unpack_trusted(frames[head])
            reply[ATTACHMENTS] = tuple(frames[head + 1 :])
            number = reply["id"]
            pending = self._pending.get(number) if number is not None else self._refused_unread()
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise BadReply("what answered here does not speak edged/1") from error
        if pending is not None:
            pending.heard = True
            pending.replies.append(reply)
            pending.wake()

    def _refused_unread(self) -> Pending | None:
        """An error without id: a request so large that it was not even read; the largest one unanswered."""
        silent = (pending for pending in self._pending.values() if not pending.heard)
        return max(silent, key=lambda pending: pending.size_bytes, default=None)

    def take(self, pending: Pending) -> dict[str, Any] | None:
        """The next reply of a request, None when there is none yet. Raises ConnectionLost when none will come."""
        if pending.replies:
            return pending.replies.popleft()
        if pending.lost:
            raise ConnectionLost(
                "the daemon went away before it answered; see `edged status`, then send the request again"
            )
        return None

    def wait_s(self, pending: Pending, now_s: float) -> float:
        """How long to wait before looking again. Raises NoReply when the patience is at its end."""
        since_s = max(pending.sent_s, self._heard_s) if pending.patient else pending.sent_s
        left_s = since_s + self.timeout_s - now_s
        if left_s <= 0:
            raise NoReply(
                f"no reply within {self.timeout_s:g} s; `edged status` says what the daemon is doing, "
                "and timeout_s sets how long to wait"
            )
        until_ping_s = self._ping_due_s(pending) - now_s
        return min(left_s, until_ping_s) if until_ping_s > 0 else left_s

    def wants_ping(self, pending: Pending, now_s: float) -> bool:
        """Half the patience has gone in silence: time to ask for a sign of life. True once for each such time."""
        if now_s < self._ping_due_s(pending):
            return False
        self._pinged_s = now_s
        return True

    def _ping_due_s(self, pending: Pending) -> float:
        return max(pending.sent_s, self._heard_s, self._pinged_s) + self.timeout_s * PING_SHARE

    def lose_all(self) -> None:
        """The connection broke: what was in flight will not be answered."""
        for pending in self._pending.values():
            pending.lost = True
            pending.wake()

    def close(self, pending: Pending) -> None:
        """No more replies of this request are wanted."""
        self._pending.pop(pending.id, None)
