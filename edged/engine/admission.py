"""May this request begin? Plain arithmetic on numbers; its answer is a named outcome, never a boolean.

KV memory is allocated in sizes of 256 · 2ⁿ tokens (or the whole context), so that a kept conversation has room for its
next turn and freed memory is of use to others.
"""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_SLOT_TOKENS = 256
NO_SHARE_BYTES = 2**62  # more than any budget
SMALLEST_ANSWER_TOKENS = 64  # a picked max_tokens is not lowered below this to start at once
COMFORTABLE_ANSWER_TOKENS = 256  # nor below this to stay in an idle slot, rather than read the prompt again


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger and the limits at this moment; bytes of KV memory and counts.

    `budget_bytes` is for all KV memory together; `idle_bytes` of it can be given back at once.
    `lent_bytes` are booked by other models on this box, and may come back: for them a request waits.
    `admitting` is False under memory pressure. `share_bytes` is what running requests of the asking uid may hold
    together, and `uid_running_bytes` what they do.
    """

    budget_bytes: int
    running_bytes: int
    idle_bytes: int
    running: int
    max_running: int
    bytes_per_token: int
    context_tokens: int
    admitting: bool = True
    lent_bytes: int = 0
    share_bytes: int = NO_SHARE_BYTES
    uid_running_bytes: int = 0

    @property
    def free_bytes(self) -> int:
        """What may be taken without giving anything back; negative when the budget has shrunk below what is held."""
        return self.budget_bytes - self.running_bytes - self.idle_bytes

    @property
    def most_tokens(self) -> int:
        """The most that prompt and answer of one request may have together when it runs alone."""
        if not self.bytes_per_token:
            return self.context_tokens
        most_bytes = min(self.budget_bytes + self.lent_bytes, self.share_bytes)
        return min(self.context_tokens, most_bytes // self.bytes_per_token)

    @property
    def reclaimable_bytes(self) -> int:
        """What may be taken when all idle memory is given back; within the uid's share."""
        return min(self.budget_bytes - self.running_bytes, self.share_bytes - self.uid_running_bytes)


@dataclass(frozen=True, slots=True)
class Admit:
    """Begin now. `reclaim_bytes` of idle KV must be given back first."""

    capacity_tokens: int
    max_tokens: int
    reclaim_bytes: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Would fit later; `reason` is `memory`, `share` (only this uid has to wait), `slots`, `pressure` or
    `books` (another engine is just booking)."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reject:
    """Can never fit; `max_tokens_fit` is the most that prompt and answer may have together."""

    max_tokens_fit: int
    because: str


Outcome = Admit | Wait | Reject


def slot_capacity(tokens: int, context_tokens: int) -> int:
    """The slot size that holds `tokens`: 256 · 2ⁿ, at most the context."""
    size = SMALLEST_SLOT_TOKENS
    while size < tokens:
        size *= 2
    return min(size, context_tokens)


def decide(
    prompt_tokens: int,
    max_tokens: int | None,
    default_max_tokens: int,
    books: Books,
    *,
    own_idle_tokens: int = 0,
    room_tokens: int = 0,
) -> Outcome:
    """Admit, wait or reject one request.

    With `max_tokens` None the answer's length is picked: the default, less where context or memory are short, and
    less again (not below SMALLEST_ANSWER_TOKENS) when that lets it start now instead of waiting for memory.
    `own_idle_tokens` is the capacity of an idle slot that the request would take up; a picked answer is shortened to
    stay in it. `room_tokens` is what a session would like beyond this turn.
    """
    most = books.most_tokens
    if prompt_tokens + (max_tokens or 1) > most:
        because = "context" if most == books.context_tokens else "memory"
        return Reject(most, because)
    if books.running >= books.max_running:
        return Wait("slots")
    if not books.admitting and books.running:
        return Wait("pressure")
    wanted = max_tokens or min(default_max_tokens, most - prompt_tokens)
    least = wanted if max_tokens else min(wanted, COMFORTABLE_ANSWER_TOKENS)
    reclaimable = books.reclaimable_bytes
    own_fits = own_idle_tokens * books.bytes_per_token <= reclaimable  # not when the budget has shrunk since
    own_answer = own_idle_tokens - prompt_tokens if own_fits else 0
    stay = Admit(own_idle_tokens, min(wanted, own_answer), max(0, -books.free_bytes))
    if own_answer >= least:
        return stay
    for answer in _answers(wanted, picked=max_tokens is None):
        needed = prompt_tokens + answer
        if own_answer >= answer:
            return stay
        roomy = slot_capacity(needed + room_tokens, books.context_tokens)
        for capacity in (roomy, slot_capacity(needed, books.context_tokens), needed):  # the last when only that fits
            kv_bytes = capacity * books.bytes_per_token
            if kv_bytes <= reclaimable:
                return Admit(capacity, answer, max(0, kv_bytes - books.free_bytes))
    everywhere = books.budget_bytes - books.running_bytes
    return Wait("share" if needed * books.bytes_per_token <= everywhere else "memory")


def _answers(wanted: int, *, picked: bool) -> list[int]:
    """Answer lengths to try, longest first."""
    if not picked:
        return [wanted]
    tries = [wanted]
    while tries[-1] // 2 >= SMALLEST_ANSWER_TOKENS:
        tries.append(tries[-1] // 2)
    return tries
