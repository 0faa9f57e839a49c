"""KV memory for the requests that wait: how much there is, who may have it now, and what the other engines of this box
are told of it. Owned by the scheduler; the arithmetic is admission's, the slots are those of `Slots`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from edged.engine.admission import Admit, Books, Outcome, Wait, decide
from edged.engine.backends.base import ModelInfo
from edged.engine.intake import Policy
from edged.engine.job import Waiting
from edged.engine.neighbours import Neighbours
from edged.engine.slots import Slots

AHEAD_SHARE = 0.25  # of the free memory that a slot nobody has asked for may take…
AHEAD_BYTES = 512 * 2**20  # …and at most so much: who comes meanwhile waits until it is open, some 0.3 s


class Booking:
    """`budget_bytes` says how much KV memory there may be in all, now. `admitting` is False under memory pressure,
    `max_running` less than the owner's while the box is hot."""

    def __init__(
        self, info: ModelInfo, slots: Slots, policy: Policy, neighbours: Neighbours, budget_bytes: Callable[[], int]
    ) -> None:
        self._info, self._slots, self._policy = info, slots, policy
        self._neighbours, self._budget_bytes = neighbours, budget_bytes
        self.admitting = True
        self.max_running = policy.max_running

    def books(self) -> Books:
        """Ledger and limits now."""
        ledger = self._slots.ledger
        return Books(
            budget_bytes=self._budget_bytes(),
            running_bytes=ledger.running_bytes,
            idle_bytes=ledger.idle_bytes,
            running=self._slots.leased,
            max_running=self.max_running,
            bytes_per_token=self._info.kv_bytes_per_token,
            context_tokens=self._info.context_tokens,
            admitting=self.admitting,
            lent_bytes=self._neighbours.kv_bytes(),
        )

    def decide_and_promise(self, waiting: Waiting) -> Outcome:
        """No other engine of this box gives the same free memory away meanwhile."""
        self._budget_bytes()  # memory is read before the books are locked
        with self._neighbours.booking() as had:
            outcome = self._decide(waiting) if had else Wait("books")
            if isinstance(outcome, Admit):  # at most this much, until the slot is booked
                self._promise_more(outcome.capacity_tokens)
        return outcome

    def has_room_ahead(self, tokens: int) -> bool:
        """Whether a slot of so many tokens may be opened before anybody asks for it; if so, promised."""
        if self._policy.prefix_idle_s <= 0:
            return False
        self._budget_bytes()
        with self._neighbours.booking() as had:
            if not had or not self.admitting or self.wanted_bytes():
                return False
            kv_bytes = tokens * self._info.kv_bytes_per_token
            fits = kv_bytes <= min(AHEAD_BYTES, AHEAD_SHARE * self.books().free_bytes)
            if fits:
                self._promise_more(tokens)
        return fits

    def tell(self, short: Waiting | None) -> None:
        """Let the other engines know what is booked, and what the first request that waits for memory needs."""
        kv_bytes = self._slots.ledger.total_bytes
        if short is None:
            self._neighbours.promise(kv_bytes)
        else:
            tokens = min(len(short.prompt) + (short.max_tokens or 1), self._info.context_tokens)
            self._neighbours.promise(kv_bytes, tokens * self._info.kv_bytes_per_token, short.start.received_s)

    def wanted_bytes(self) -> int:
        """KV that requests for other models wait for."""
        return self._neighbours.wanted_bytes()

    def _promise_more(self, tokens: int) -> None:
        self._neighbours.promise(self._slots.ledger.total_bytes + tokens * self._info.kv_bytes_per_token)

    def _decide(self, waiting: Waiting) -> Outcome:
        kept = self._slots.candidate(waiting.start.uid, waiting.session, waiting.prompt)
        grown = len(waiting.prompt) - (len(kept.slot.tokens) if kept else 0)
        books = self._books_before(waiting.start.received_s)
        if self._policy.kv_share_per_uid < 1:
            books = self._books_of(waiting.start.uid, books)
        return decide(
            len(waiting.prompt),
            waiting.max_tokens,
            self._policy.default_max_tokens,
            books,
            own_idle_tokens=kept.slot.capacity_tokens if kept else 0,
            room_tokens=max(0, grown) + (waiting.max_tokens or 0) if waiting.session else 0,
        )

    def _books_before(self, received_s: float) -> Books:
        """The books without what requests for other models wait for that came earlier: no model starves another."""
        books = self.books()
        wanted_bytes = min(self._neighbours.wanted_bytes(before_s=received_s), books.budget_bytes)
        return replace(
            books, budget_bytes=books.budget_bytes - wanted_bytes, lent_bytes=books.lent_bytes + wanted_bytes
        )

    def _books_of(self, uid: int, books: Books) -> Books:
        """The books with this uid's share. Idle memory counts for nobody: whoever needs it takes it."""
        running_bytes, _ = self._slots.ledger.held_by(uid)
        share_bytes = int((books.budget_bytes + books.lent_bytes) * self._policy.kv_share_per_uid)
        return replace(books, share_bytes=share_bytes, uid_running_bytes=running_bytes)
