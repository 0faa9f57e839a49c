"""The scheduler over the real model: who waits for whom, counted in calls and not in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from edged.engine.intake import Policy
from edged.engine.load import Loaded
from edged.engine.scheduler import Scheduler
from edged.protocol import engine as wire

POLICY = Policy(
    default_max_tokens=64,
    max_queue=64,
    max_queue_per_client=64,
    max_running=8,
    max_sessions=8,
    session_idle_s=600,
    prefix_idle_s=600,
    stream_interval_s=0.0,
)
SAMPLING = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "logprobs": 0,
}


class Watched:
    """A backend that writes down each call and passes it on."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.calls: list[tuple[str, int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "rid":
            self._backend.rid = value
        else:
            object.__setattr__(self, name, value)

    def open_slot(self, capacity_tokens: int) -> Any:
        self.calls.append(("open", self._backend.rid, capacity_tokens))
        return self._backend.open_slot(capacity_tokens)

    def prefill(self, slot: Any, tokens: Sequence[int], stopped: Callable[[], bool] | None = None) -> None:
        self.calls.append(("prefill", self._backend.rid, len(tokens)))
        self._backend.prefill(slot, tokens, stopped)

    def step(self, slots: Sequence[Any]) -> Any:
        self.calls.append(("step", self._backend.rid, len(slots)))
        return self._backend.step(slots)


class Engine:
    """A scheduler without the process around it."""

    def __init__(self, nano: Loaded, budget_bytes: int = 2**28, policy: Policy = POLICY) -> None:
        self.backend = Watched(nano.backend)
        self.said: list[wire.ToFront] = []
        self.scheduler = Scheduler(
            self.backend,  # type: ignore[arg-type]
            nano.pace,
            policy,
            send=self.said.append,
            budget_bytes=lambda: budget_bytes,
            strips_first_space=False,
        )

    def start(self, rid: int, prompt: str, max_tokens: int, **more: Any) -> None:
        body = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "session": None,
            "priority": 5,
            "stop": None,
            "overflow": "error",
            "seed": rid,
        }
        deadline_s = more.pop("deadline_s", None)
        start = wire.Start(rid, 1, b"c", "generate", body | SAMPLING | more, time.monotonic(), deadline_s, True)
        self.scheduler.submit(start)

    def run(self, turns: int = 100_000) -> None:
        for _ in range(turns):
            if not self.scheduler.busy:
                return
            self.scheduler.turn()

    def of(self, rid: int, kind: type[Any]) -> list[Any]:
        return [message for message in self.said if isinstance(message, kind) and getattr(message, "rid", 0) == rid]


@pytest.fixture
def engine(nano: Loaded) -> Engine:
    made = Engine(nano)
    yield made
    for kept in made.scheduler.slots.idle.all():
        made.scheduler.slots.close(kept)
    assert made.scheduler.slots.ledger.total_bytes == 0
    assert made.scheduler.counts["book_errors"] == 0


def test_a_running_stream_waits_for_one_slice_at_most(engine: Engine, nano: Loaded) -> None:
    engine.start(1, "on and on", 60, temperature=3.0)
    engine.scheduler.turn()
    engine.scheduler.turn()
    for rid in (2, 3):
        engine.start(rid, f"{rid} hot cold " * 150, 4)
    engine.run()
    slices = 0
    longest = 0
    for call, rid, tokens in engine.backend.calls:
        if call == "prefill" and rid != 1:
            slices += 1
            assert tokens <= 512
        elif rid == 1 and call == "step":
            longest, slices = max(longest, slices), 0
    assert longest == 1
    finished = engine.of(1, wire.Done)[0]
    assert finished.finish_reason in ("length", "stop")
    assert {done.rid for done in engine.said if isinstance(done, wire.Done)} == {1, 2, 3}


def test_two_long_prompts_are_read_in_turn(engine: Engine, nano: Loaded) -> None:
    for rid in (1, 2):
        engine.start(rid, f"{rid} hot cold " * 200, 1)
    engine.run()
    readers = [rid for call, rid, _ in engine.backend.calls if call == "prefill"]
    both = readers[: 2 * min(readers.count(1), readers.count(2))]
    assert len(both) > 2
    assert all(left != right for left, right in zip(both[::2], both[1::2], strict=True))


def test_a_prompt_read_in_slices_gives_the_tokens_of_one_read_whole(engine: Engine, nano: Loaded) -> None:
    ids = nano.backend.encode_text("set the lab fan to 40 percent " * 20)
    assert len(ids) > 64

    def answer(sizes: int) -> list[int]:
        slot = nano.backend.open_slot(1024)
        for at in range(0, len(ids), sizes):
            nano.backend.prefill(slot, ids[at : at + sizes])
        told = []
        while len(told) < 24:
            told += [picked.token for picked in nano.backend.step([slot])[0]]
        nano.backend.close_slot(slot)
        return told[:24]

    assert answer(len(ids)) == answer(16) == answer(7)


def test_cancel_between_slices_ends_a_prompt_that_is_being_read(engine: Engine) -> None:
    engine.start(1, "hot cold " * 400, 4)
    engine.scheduler.turn()
    engine.scheduler.stop(1, "cancelled")
    read = sum(tokens for call, _, tokens in engine.backend.calls if call == "prefill")
    assert 0 < read < 400
    done = engine.of(1, wire.Done)[0]
    assert (done.finish_reason, done.usage["completion_tokens"]) == ("cancelled", 0)
    assert not engine.scheduler.busy
    assert engine.scheduler.slots.ledger.running_bytes == 0


def test_a_deadline_ends_a_prompt_that_is_being_read(engine: Engine) -> None:
    engine.start(1, "hot cold " * 400, 4, deadline_s=time.monotonic() + 0.001)
    time.sleep(0.002)
    engine.run(5)
    assert engine.of(1, wire.Failed)[0].code == "deadline_exceeded"
    engine.start(2, "hot cold " * 400, 4, deadline_s=time.monotonic() + 3600)
    engine.scheduler.turn()
    assert engine.of(2, wire.Accepted)
    engine.scheduler.stop(2, "gone")
    assert not engine.of(2, wire.Done)  # nobody is left to be told


def test_memory_for_one_lets_the_second_wait_and_then_run(nano: Loaded) -> None:
    per_token = nano.backend.info.kv_bytes_per_token
    engine = Engine(nano, budget_bytes=512 * per_token)
    engine.start(1, "first", 300, temperature=3.0)
    engine.start(2, "second", 300, temperature=3.0)
    engine.scheduler.turn()
    assert [type(message) for message in engine.said[:2]] == [wire.Accepted, wire.Queued]
    most = 0
    while engine.scheduler.busy:
        engine.scheduler.turn()
        most = max(most, engine.scheduler.slots.ledger.total_bytes)
    assert most <= 512 * per_token
    assert engine.of(2, wire.Done)
    assert engine.of(2, wire.Accepted)
    engine.start(3, "third", 600)
    engine.run()
    assert engine.of(3, wire.Failed)[0].max_tokens_fit == 512
    for kept in engine.scheduler.slots.idle.all():
        engine.scheduler.slots.close(kept)


def test_the_first_token_of_an_answer_says_nothing_of_what_a_decode_step_costs(engine: Engine, nano: Loaded) -> None:
    """It is there without a pass; a box that is asked for many one-token answers would seem far too fast."""
    known_s = nano.pace.step_s
    for rid in range(1, 6):
        engine.start(rid, "set the lab fan to 40 percent", 1)
        engine.run()
    assert nano.pace.step_s == known_s > 0
    engine.start(9, "set the lab fan to 40 percent", 5)
    engine.run()
    assert nano.pace.step_s != known_s
