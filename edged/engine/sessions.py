"""Idle KV memory that may be of use again: named sessions and anonymous leftovers. Owned by the scheduler.

A prompt takes up the slot of its session, or, without one, the idle slot of the *same uid* with the longest common
beginning: another user's prompts must not show in timings. Which memory is given back is decided here too: the least
recently used first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edged.engine.backends.base import Slot

NOBODY = -1  # the uid of a slot that was opened before anybody asked for it, and of a peer the kernel says nothing of
MIN_SHARED_TOKENS = 16  # fewer are read again sooner than they are worth
_CHUNK = 256


@dataclass(slots=True, eq=False)
class Kept:
    """An idle slot: whose, under which session name (None: anonymous), since when (CLOCK_MONOTONIC s).

    `tail` are its last tokens that were decoded and should be read again as a prompt: see `Slots.reread`.
    """

    number: int
    slot: Slot
    uid: int
    session: str | None
    since_s: float
    kv_bytes: int
    tail: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Idle:
    """All idle slots, least recently used first."""

    _kept: dict[int, Kept] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._kept)

    def numbers(self) -> list[int]:
        return list(self._kept)

    def all(self) -> list[Kept]:
        return list(self._kept.values())

    def keep(self, kept: Kept) -> None:
        """The newest idle slot."""
        self._kept[kept.number] = kept

    def take(self, kept: Kept) -> None:
        """It is in use, or closed, from now on."""
        del self._kept[kept.number]

    def session(self, uid: int, name: str) -> Kept | None:
        """A user's own session; another user's is never found."""
        return next((kept for kept in self._kept.values() if kept.session == name and kept.uid == uid), None)

    def best(self, uid: int, prompt: Sequence[int]) -> Kept | None:
        """The anonymous slot of this uid that shares the longest beginning with `prompt`, if that is worth it."""
        candidates = [kept for kept in self._kept.values() if kept.uid == uid and kept.session is None]
        shared, best = max(
            ((common_prefix(kept.slot.tokens, prompt), kept) for kept in candidates),
            key=lambda pair: pair[0],
            default=(0, None),
        )
        return best if shared >= MIN_SHARED_TOKENS else None

    def keep_first(self, kept: Kept) -> None:
        """An idle slot that is given back before all others."""
        self._kept = {kept.number: kept, **self._kept}

    def empty(self, capacity_tokens: int) -> Kept | None:
        """A slot of this capacity that was opened ahead."""
        ahead = (kept for kept in self._kept.values() if kept.uid == NOBODY and not kept.slot.tokens)
        return next((kept for kept in ahead if kept.slot.capacity_tokens == capacity_tokens), None)

    def to_give_back(self, kv_bytes: int) -> list[Kept]:
        """The least recently used slots that together free `kv_bytes`."""
        chosen: list[Kept] = []
        for kept in self._kept.values():
            if kv_bytes <= 0:
                break
            chosen.append(kept)
            kv_bytes -= kept.kv_bytes
        return chosen


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    length = min(len(left), len(right))
    for start in range(0, length, _CHUNK):  # slices compare in native code
        end = min(start + _CHUNK, length)
        if left[start:end] != right[start:end]:
            return next(at for at in range(start, end) if left[at] != right[at])
    return length
