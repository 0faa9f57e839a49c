"""Ten thousand random days of an engine: the scheduler, its books and its queue over a backend of numbers only.

Nothing is allocated and nothing computed, so a day takes a millisecond; checked are the arithmetic and the order.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from edged.engine.announced import AnnouncedBackend
from edged.engine.backends.base import Interrupted, ModelInfo
from edged.engine.intake import Policy
from edged.engine.pace import Pace
from edged.engine.queue import AGEING_S
from edged.engine.sampler import Picked, Sampler, Sampling
from edged.engine.scheduler import Scheduler
from edged.protocol import engine as wire
from edged.protocol.pulse import PulseWriter, create

BYTES_PER_TOKEN = 1000
CONTEXT_TOKENS = 4096
EOS = 1
PLAIN = {
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "seed": None,
    "logprobs": 0,
    "stop": None,
    "overflow": "error",
}


class NumberSlot:
    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self.tokens: list[int] = []
        self.read_tokens = 0
        self.pending: list[int] = []
        self.fresh = False
        self.sampler = Sampler(Sampling())


class Numbers:
    """A backend that keeps its promises to the letter and complains when the engine does not keep its own."""

    def __init__(self, *, can_rewind: bool, chance: random.Random) -> None:
        self.info = ModelInfo("n", "n", CONTEXT_TOKENS, 2000, frozenset({EOS}), BYTES_PER_TOKEN, 0, can_rewind, "none")
        self.open: list[NumberSlot] = []
        self._chance = chance
        self._tokens_a_step = chance.choice((1, 8, 64))
        self._stop_chance = chance.choice((0.1, 0.5))
        self.interrupted = self.long_calls = 0

    @property
    def held_bytes(self) -> int:
        return sum(slot.capacity_tokens for slot in self.open) * BYTES_PER_TOKEN

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        raise NotImplementedError("these days know no chats")

    def encode_text(self, text: str) -> list[int]:
        """`length variant`: forty tokens that all prompts share, then the variant's own."""
        length, variant = map(int, text.split())
        return ([*range(100, 140)] + [1000 + variant] * length)[:length]

    def token_bytes(self, token: int) -> bytes:
        return b"x"

    def open_slot(self, capacity_tokens: int) -> NumberSlot:
        slot = NumberSlot(capacity_tokens)
        self.open.append(slot)
        return slot

    def prefill(self, slot: NumberSlot, tokens: Sequence[int], stopped: Callable[[], bool] | None = None) -> None:
        assert tokens
        assert not slot.pending
        self.long_calls += stopped is not None
        if stopped is not None and any(stopped() for _ in range(2)):  # it is asked again and again
            self.interrupted += 1
            raise Interrupted
        if slot.read_tokens == len(slot.tokens):
            slot.read_tokens += len(tokens)
        slot.tokens.extend(tokens)
        slot.fresh = True
        assert len(slot.tokens) <= slot.capacity_tokens

    def step(self, slots: Sequence[NumberSlot]) -> list[list[Picked]]:
        (slot,) = slots
        assert slot.fresh, "a step right after a rewind repeats a token"
        slot.tokens.extend(slot.pending)
        assert len(slot.tokens) < slot.capacity_tokens
        picked = [7] * min(self._tokens_a_step, slot.capacity_tokens - len(slot.tokens))
        if self._chance.random() < self._stop_chance:
            picked[-1] = EOS
        slot.tokens.extend(picked[:-1])
        slot.pending = picked[-1:]
        return [[Picked(token) for token in picked]]

    def rewind(self, slot: NumberSlot, length: int) -> None:
        assert length == len(slot.tokens) or self.info.can_rewind
        slot.pending.clear()
        slot.fresh = False
        del slot.tokens[length:]
        slot.read_tokens = min(slot.read_tokens, length)

    def close_slot(self, slot: NumberSlot) -> None:
        self.open.remove(slot)


class Day:
    """One schedule: an engine, a clock that is turned by hand, and what has become of every request."""

    def __init__(self, chance: random.Random, pulse: PulseWriter) -> None:
        self.chance = chance
        self.now_s = 1000.0
        self.budget_bytes = chance.choice((1, 2, 4, 8)) * 1000 * BYTES_PER_TOKEN
        self.backend = Numbers(can_rewind=chance.random() < 0.9, chance=chance)
        self.share = chance.choice((1.0, 1.0, 0.5))
        pace = Pace(0.35)
        self.scheduler = Scheduler(
            AnnouncedBackend(self.backend, pulse, pace),  # type: ignore[arg-type]  # its slots are its own
            pace,
            Policy(
                default_max_tokens=512,
                max_queue=chance.choice((4, 64)),
                max_queue_per_client=chance.choice((2, 64)),
                max_running=chance.choice((1, 2, 16)),
                max_sessions=chance.choice((1, 3, 64)),
                session_idle_s=600,
                prefix_idle_s=120,
                stream_interval_s=0,
                kv_share_per_uid=self.share,
            ),
            send=self._hear,
            budget_bytes=lambda: self.budget_bytes,
            strips_first_space=False,
            listen=self._news,
            clock=lambda: self.now_s,
        )
        self.waiting: dict[int, wire.Start] = {}
        self.running: dict[int, wire.Start] = {}
        self.ends: dict[int, str] = {}
        self.late_rids = itertools.count(1000)  # of those that come during a long native call

    def arrive(self, rid: int, **fields: Any) -> None:
        start = self.waiting[rid] = self._start(rid, **fields)
        self.scheduler.submit(start)

    def _start(self, rid: int, **fields: Any) -> wire.Start:
        chance = self.chance
        body = {
            **PLAIN,
            "prompt": f"{chance.choice((3, 41, 100, 700, 3000))} {chance.randrange(3)}",
            "max_tokens": chance.choice((None, 1, 30, 300, 2000, 2**31 - 1)),
            "session": chance.choice((None, None, "a", "b")),
            "priority": chance.randrange(10),
        } | fields
        deadline_s = self.now_s + chance.randrange(1, 300) if chance.random() < 0.1 else None
        uid = chance.randrange(1000, 1003)
        return wire.Start(rid, uid, b"%d" % uid, "generate", body, self.now_s, deadline_s, stream=False)

    def _news(self) -> list[wire.ToEngine]:
        """What comes during a long native call."""
        match self.chance.randrange(4):
            case 0 | 1:
                return [wire.Stop(self.chance.choice([*self.waiting, *self.running]), "cancelled")]
            case 2:
                return [self._start(next(self.late_rids))]
        return []

    def turn(self) -> None:
        """As the worker does: what came during a long native call is handed in after it."""
        self.scheduler.turn()
        for message in self.scheduler.meanwhile.take_put_off():
            if isinstance(message, wire.Stop):
                self.scheduler.stop(message.rid, message.reason)
            elif isinstance(message, wire.Start):
                self.waiting[message.rid] = message
                self.scheduler.submit(message)

    def _hear(self, message: wire.ToFront) -> None:
        match message:
            case wire.Accepted():
                self._check_admission(message)
            case wire.Done():
                del self.running[message.rid]
                self._end(message.rid, message.finish_reason)
            case wire.Failed():
                if message.code == "too_large":
                    fit = min(CONTEXT_TOKENS, int(self.budget_bytes * self.share) // BYTES_PER_TOKEN)
                    assert message.max_tokens_fit == fit
                    body = self.waiting[message.rid].body
                    assert int(body["prompt"].split()[0]) + (body["max_tokens"] or 1) > fit
                assert message.code != "busy" or message.retry_after_ms
                assert (self.waiting.pop(message.rid, None) is None) != (self.running.pop(message.rid, None) is None)
                self._end(message.rid, message.code)

    def _end(self, rid: int, how: str) -> None:
        assert rid not in self.ends, f"{rid} ended twice: {self.ends[rid]}, {how}"
        assert how != "internal"
        self.ends[rid] = how

    def _check_admission(self, accepted: wire.Accepted) -> None:
        assert self.backend.held_bytes <= self.budget_bytes, "more KV memory than the budget"
        assert self.scheduler.slots.ledger.total_bytes == self.backend.held_bytes
        start = self.waiting.pop(accepted.rid)
        uid_bytes, _ = self.scheduler.slots.ledger.held_by(start.uid)
        assert uid_bytes <= self.budget_bytes * self.share, "more than this user's share"
        asked = start.body["max_tokens"]
        assert accepted.max_tokens == asked if asked else accepted.max_tokens >= 1
        assert accepted.prompt_tokens + accepted.max_tokens <= accepted.kv_bytes // BYTES_PER_TOKEN
        held_back = {other.uid for other in self.running.values() if self.share < 1} - {start.uid}
        taken = {(other.uid, other.body["session"]) for other in self.running.values()}
        passed = [
            other.rid
            for other in self.waiting.values()
            if self._rank(other) < self._rank(start)
            and (other.uid, other.body["session"]) not in taken
            and other.uid not in held_back  # by their own share, perhaps
        ]
        assert not passed, f"{start.rid} began before {passed}, whose turn it was"
        self.running[accepted.rid] = start

    def _rank(self, start: wire.Start) -> tuple[float, float]:
        return (-(start.body["priority"] + (self.now_s - start.received_s) / AGEING_S), start.received_s)

    def happen(self, rid: int) -> None:
        """Something that may happen between two turns."""
        chance, scheduler = self.chance, self.scheduler
        match chance.randrange(12):
            case 0:
                self.budget_bytes = chance.choice((0, 300, 1000, 3000, 8000)) * BYTES_PER_TOKEN
            case 1:
                scheduler.booking.admitting = not scheduler.booking.admitting
            case 2:
                scheduler.slots.give_back(chance.randrange(10**6))
            case 3 if self.running:
                scheduler.shed_newest()
            case 4 | 5 if self.waiting or self.running:
                target = chance.choice([*self.waiting, *self.running])
                if chance.random() < 0.5:
                    scheduler.stop(target, "cancelled")
                else:
                    self.waiting.pop(target, None) or self.running.pop(target)
                    self._end(target, "gone")
                    scheduler.stop(target, "gone")
            case _:
                self.arrive(rid)

    def evening(self) -> None:
        """Work runs dry; every request has had its end, and after a while no memory is left in use."""
        self.scheduler.booking.admitting = True
        self.budget_bytes = CONTEXT_TOKENS * BYTES_PER_TOKEN
        turns = 0
        while self.scheduler.busy:
            self.turn()
            self.now_s += 1
            turns += 1
            assert turns < 100_000, "the engine is busy and comes to no end"
        assert not self.waiting
        assert not self.running
        self.now_s += 10_000
        self.scheduler.tick()
        assert self.scheduler.slots.ledger.total_bytes == 0
        assert len(self.scheduler.slots.ledger) == 0
        assert self.backend.open == []
        assert self.scheduler.slots.check_books() is None
        assert self.scheduler.counts["book_errors"] == 0


@pytest.fixture(scope="module")
def pulse() -> Any:
    fd = create()
    yield PulseWriter(fd)
    os.close(fd)


@pytest.mark.parametrize("block", range(10))
def test_a_thousand_random_schedules(block: int, pulse: PulseWriter) -> None:
    interrupted = 0
    for seed in range(block * 1000, (block + 1) * 1000):
        chance = random.Random(seed)
        day = Day(chance, pulse)
        arrivals = chance.randrange(2, 16)
        for rid in range(1, arrivals + 1):
            day.happen(rid)
            for _ in range(chance.choice((0, 1, 3))):
                day.turn()
                day.now_s += chance.choice((0.0, 0.1, 5.0))
                if day.scheduler.unsettled and chance.random() < 0.5:
                    day.scheduler.settle()
                if chance.random() < 0.1:
                    day.scheduler.tick()
                    books = day.scheduler.booking.books()
                    assert books.free_bytes >= 0 or not books.idle_bytes, "idle memory above the budget"
        day.evening()
        interrupted += day.backend.interrupted
    assert interrupted > 0, "the schedules hold no long native call that is ended"


@pytest.mark.parametrize("can_rewind", [True, False])
@pytest.mark.parametrize("has_deadline", [True, False])
def test_a_deadline_forbids_long_slices_where_a_call_may_not_be_ended(
    pulse: PulseWriter, can_rewind: bool, has_deadline: bool
) -> None:
    days = (Day(random.Random(seed), pulse) for seed in range(100))
    day = next(day for day in days if day.backend.info.can_rewind == can_rewind and day.share == 1)
    day.budget_bytes = CONTEXT_TOKENS * BYTES_PER_TOKEN
    start = day._start(1, prompt="700 1", session=None, max_tokens=1)
    start = day.waiting[1] = replace(start, deadline_s=day.now_s + 100 if has_deadline else None)
    day.scheduler.submit(start)
    day.evening()
    assert bool(day.backend.long_calls) == (can_rewind or not has_deadline)


def test_a_large_and_unimportant_request_is_not_starved_by_small_and_important_ones(pulse: PulseWriter) -> None:
    day = Day(random.Random(1), pulse)
    day.budget_bytes = 1024 * BYTES_PER_TOKEN
    day.scheduler.booking.max_running = 16
    important = {"session": None, "priority": 9, "max_tokens": 60}
    for rid in range(2, 5):
        day.arrive(rid, prompt="50 1", **important)
    day.scheduler.turn()
    day.arrive(1, prompt="900 1", session=None, priority=0, max_tokens=100)
    for rid in range(5, 3000):
        if 1 not in day.waiting:
            break
        if len(day.waiting) < 4:  # there is always somebody more important
            day.arrive(rid, prompt="50 1", **important)
        day.turn()
        day.now_s += 0.5
    waited_s = day.now_s - 1000
    assert 1 in day.running or day.ends.get(1) == "length", day.ends.get(1)
    assert 30 < waited_s <= 9 * AGEING_S + 40
