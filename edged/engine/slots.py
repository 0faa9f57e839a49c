"""KV memory by the slot: opened, taken up again, kept idle, given back; each step booked. Owned by the scheduler.

The only place that opens and closes a backend's slots, so the ledger cannot miss one.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edged.engine.announced import AnnouncedBackend
from edged.engine.backends.base import Slot
from edged.engine.ledger import Entry, Ledger
from edged.engine.sessions import NOBODY, Idle, Kept, common_prefix

log = logging.getLogger(__name__)

LEAST_READ_TOKENS = 2  # of a prompt whose beginning is in the cache


@dataclass(frozen=True, slots=True)
class Lease:
    """A slot in use by one request; its first `cached_tokens` prompt tokens need not be read again."""

    number: int
    slot: Slot
    uid: int
    session: str | None
    kv_bytes: int
    cached_tokens: int


class Slots:
    """All slots of one model."""

    def __init__(self, backend: AnnouncedBackend, *, max_idle: int) -> None:
        self._backend = backend
        self._max_idle = max_idle
        self._numbers = itertools.count(1)
        self._leased: dict[int, Lease] = {}
        self.ledger = Ledger()
        self.idle = Idle()
        self.ahead_tokens = 0  # capacity of the slot that the next request may want; 0: there is one, or none is wanted

    def candidate(self, uid: int, session: str | None, prompt: Sequence[int]) -> Kept | None:
        """The idle slot this request could take up: its session's, else one with a shared beginning."""
        kept = self.idle.best(uid, prompt) if session is None else self.idle.session(uid, session)
        return kept if kept is not None and self._usable(kept, prompt) else None

    def lease(
        self,
        owner: str,
        uid: int,
        session: str | None,
        prompt: Sequence[int],
        capacity_tokens: int,
        reclaim_bytes: int,
    ) -> Lease:
        """Give back `reclaim_bytes`, and take up the candidate or open a new slot of `capacity_tokens`.

        Admission asks for the candidate by its capacity; any other capacity is a new slot's.
        """
        kept = self.candidate(uid, session, prompt)
        if kept is not None and kept.slot.capacity_tokens == capacity_tokens:
            lease = self._take_up(kept, owner, prompt)
        else:
            outgrown = None if session is None else self.idle.session(uid, session)
            if outgrown is not None:  # or not to be rewound: the session moves into a new slot
                self.close(outgrown)
                reclaim_bytes -= outgrown.kv_bytes
            empty = self.idle.empty(capacity_tokens)
            if empty is not None:
                lease = self._fill(empty, owner, uid, session)
                reclaim_bytes -= lease.kv_bytes
            else:
                self.give_back(reclaim_bytes)
                reclaim_bytes = 0
                lease = self._open(owner, uid, session, capacity_tokens)
            if session is None:  # a session has its slot for its next turn
                self.ahead_tokens = capacity_tokens
        self._leased[lease.number] = lease
        self.give_back(reclaim_bytes)
        return lease

    def _take_up(self, kept: Kept, owner: str, prompt: Sequence[int]) -> Lease:
        shared = self._shared(kept, prompt)
        try:
            self._backend.rewind(kept.slot, shared)
        except Exception:
            self.close(kept)
            raise
        self.idle.take(kept)
        self.ledger.change(kept.number, owner=owner, running=True)
        return Lease(kept.number, kept.slot, kept.uid, kept.session, kept.kv_bytes, shared)

    def _shared(self, kept: Kept, prompt: Sequence[int]) -> int:
        """How many tokens of the prompt need not be read again for the same answer as after a fresh reading.

        Decoded tokens are read again, and never a single token alone: see `Slot.read_tokens`. A model that cannot
        rewind goes on from where it is or not at all.
        """
        common = common_prefix(kept.slot.tokens, prompt)
        if not self._backend.info.can_rewind:
            return min(common, len(prompt) - 1)
        return max(0, min(common, kept.slot.read_tokens, len(prompt) - LEAST_READ_TOKENS))

    def _usable(self, kept: Kept, prompt: Sequence[int]) -> bool:
        if self._backend.info.can_rewind:
            return True
        shared = self._shared(kept, prompt)
        return shared == len(kept.slot.tokens) and min(prompt[shared:]) >= 0  # a picture is read into a fresh slot

    def _open(self, owner: str, uid: int, session: str | None, capacity_tokens: int, *, running: bool = True) -> Lease:
        kv_bytes = capacity_tokens * self._backend.info.kv_bytes_per_token
        number = next(self._numbers)
        self.ledger.book(number, Entry(owner, uid, capacity_tokens, kv_bytes, running=running))
        try:
            slot = self._backend.open_slot(capacity_tokens)
        except Exception:
            self.ledger.release(number)
            raise
        return Lease(number, slot, uid, session, kv_bytes, 0)

    def _fill(self, empty: Kept, owner: str, uid: int, session: str | None) -> Lease:
        self.idle.take(empty)
        self.ledger.change(empty.number, owner=owner, uid=uid, running=True)
        return Lease(empty.number, empty.slot, uid, session, empty.kv_bytes, 0)

    def open_ahead(self, now_s: float, has_room: Callable[[int], bool]) -> None:
        """Open the slot that the next request may want, unless there is one or `has_room(its tokens)` says no.

        The kernel hands memory over page by page, 100 ms for 400 MB. The slot idles as any other, and is the first to
        be given back.
        """
        tokens, self.ahead_tokens = self.ahead_tokens, 0
        if self.idle.empty(tokens) is not None or not has_room(tokens):
            return
        try:
            opened = self._open("ahead", NOBODY, None, tokens, running=False)
        except Exception:
            log.exception("no slot could be opened ahead tokens=%d", tokens)
        else:
            self.idle.keep_first(Kept(opened.number, opened.slot, NOBODY, None, now_s, opened.kv_bytes))

    def end(self, lease: Lease, *, keep: bool, now_s: float) -> None:
        """The request is over: keep its KV for what comes next, or give it back."""
        del self._leased[lease.number]
        kept = Kept(lease.number, lease.slot, lease.uid, lease.session, now_s, lease.kv_bytes, self._tail(lease))
        self.ledger.change(lease.number, owner=f"session {lease.session}" if lease.session else "idle", running=False)
        self.idle.keep(kept)
        if not keep:
            self.close(kept)
        while len(self.idle) > self._max_idle:
            self.close(self.idle.all()[0])

    def _tail(self, lease: Lease) -> list[int]:
        slot = lease.slot
        if lease.session is None or not self._backend.info.can_rewind or slot.read_tokens == len(slot.tokens):
            return []
        return slot.tokens[min(slot.read_tokens, max(0, len(slot.tokens) - LEAST_READ_TOKENS)) :]

    @property
    def unread(self) -> Kept | None:
        """The session used last whose last answer should be read again."""
        return next((kept for kept in reversed(self.idle.all()) if kept.tail), None)

    def reread(self, kept: Kept, most_tokens: int) -> None:
        """Read a part of a session's last answer as its next turn would have to, while nobody waits for it.

        Decoded tokens must be read again to give the answer of a fresh reading: see `Slot.read_tokens`.
        """
        try:
            if kept.slot.read_tokens < len(kept.slot.tokens):  # the decoded ones are still there
                self._backend.rewind(kept.slot, len(kept.slot.tokens) - len(kept.tail))
            count = len(kept.tail) if len(kept.tail) <= most_tokens + 1 else most_tokens  # none is left alone
            self._backend.prefill(kept.slot, kept.tail[:count])
            del kept.tail[:count]
        except Exception:
            log.exception("a kept answer could not be read again session=%d", kept.number)
            self.close(kept)

    def close(self, kept: Kept) -> None:
        """Give an idle slot's memory back."""
        self.idle.take(kept)
        try:
            self._backend.close_slot(kept.slot)
        finally:
            self.ledger.release(kept.number)

    def give_back(self, kv_bytes: int) -> int:
        """Close least recently used idle slots until `kv_bytes` are free; returns how many slots."""
        closed = self.idle.to_give_back(kv_bytes)
        for kept in closed:
            self.close(kept)
        return len(closed)

    def expire(self, *, sessions_before_s: float, anonymous_before_s: float) -> None:
        """Close what has idled too long."""
        for kept in self.idle.all():
            if kept.since_s < (sessions_before_s if kept.session else anonymous_before_s):
                self.close(kept)

    def close_session(self, uid: int, name: str) -> bool:
        """Free a session; False when this uid has none of that name idle."""
        kept = self.idle.session(uid, name)
        if kept is None:
            return False
        self.close(kept)
        return True

    @property
    def leased(self) -> int:
        """How many slots requests use now."""
        return len(self._leased)

    def busy(self, uid: int, session: str) -> bool:
        """Whether a request of this session runs now."""
        return any(lease.session == session and lease.uid == uid for lease in self._leased.values())

    def check_books(self) -> str | None:
        """None when the ledger holds exactly the slots there are."""
        live = dict.fromkeys(self._leased, True) | dict.fromkeys(self.idle.numbers(), False)
        return self.ledger.mismatch(live)
