"""KV memory opened before it is asked for: taken by the next request, booked, and the first to be given back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edged.engine.load import Loaded
from edged.engine.sessions import NOBODY
from edged.serving.peer import UNKNOWN
from tests.unit.engine.test_fairness import POLICY, Engine


def slots_opened(engine: Engine) -> list[int]:
    """Capacities, in the order in which the backend was asked for them."""
    return [capacity for call, _, capacity in engine.backend.calls if call == "open"]


def settle(engine: Engine) -> None:
    for _ in range(100):
        if not engine.scheduler.unsettled:
            return
        engine.scheduler.settle()
    raise AssertionError("there is always something left to do")


def served_once(engine: Engine) -> Engine:
    """One short request has come and gone, and what could be done after it is done."""
    engine.start(1, "set the lab fan to 40 percent", 20)
    engine.run()
    settle(engine)
    return engine


def test_the_next_request_of_that_size_finds_its_memory_open(nano: Loaded) -> None:
    engine = served_once(Engine(nano))
    opened = slots_opened(engine)
    assert len(opened) == 2
    assert opened[0] == opened[1]
    engine.start(2, "which room is warmest", 20)
    engine.scheduler.turn()
    assert slots_opened(engine) == opened, "nothing had to be opened while the request waited"
    assert engine.scheduler.slots.ledger.running_bytes == opened[0] * nano.backend.info.kv_bytes_per_token
    assert engine.scheduler.slots.ledger.held_by(NOBODY) == (0, 0), "it is booked on who has it now"
    engine.run()
    assert engine.scheduler.slots.check_books() is None
    assert engine.scheduler.slots.idle.empty(opened[0]) is None


def test_what_an_unknown_user_leaves_is_not_handed_on(nano: Loaded) -> None:
    """The uid of a peer that the kernel says nothing of is -1, too."""
    engine = Engine(nano)
    slots = engine.scheduler.slots
    lease = slots.lease("rid 1", UNKNOWN, None, [1, 2, 3], 256, 0)
    nano.backend.prefill(lease.slot, [1, 2, 3])
    slots.end(lease, keep=True, now_s=0.0)
    assert slots.idle.empty(256) is None
    slots.give_back(1)


def test_a_request_of_another_size_opens_its_own(nano: Loaded) -> None:
    engine = served_once(Engine(nano))
    engine.start(2, "which room is warmest", 1000)
    engine.run()
    assert slots_opened(engine)[2] > slots_opened(engine)[1]


def test_memory_that_is_wanted_is_taken_from_it_first(nano: Loaded) -> None:
    engine = served_once(Engine(nano))
    slots = engine.scheduler.slots
    assert [kept.uid == NOBODY for kept in slots.idle.all()] == [True, False]
    assert slots.give_back(1) == 1
    assert [kept.uid == NOBODY for kept in slots.idle.all()] == [False]
    assert slots.check_books() is None


@pytest.mark.parametrize("sizes", [2, 5])
def test_it_takes_no_more_than_a_quarter_of_the_free_memory(nano: Loaded, sizes: int) -> None:
    first = Engine(nano)
    first.start(1, "set the lab fan to 40 percent", 20)
    first.run()
    capacity_bytes = slots_opened(first)[0] * nano.backend.info.kv_bytes_per_token
    engine = served_once(Engine(nano, capacity_bytes * sizes))
    assert len(slots_opened(engine)) == (2 if sizes == 5 else 1)


def test_it_is_given_back_when_nobody_comes(nano: Loaded) -> None:
    engine = served_once(Engine(nano))
    slots = engine.scheduler.slots
    later_s = slots.idle.all()[0].since_s + 1
    slots.expire(sessions_before_s=0.0, anonymous_before_s=later_s + 600)
    assert len(slots.idle) == 0
    assert slots.ledger.total_bytes == 0


def test_who_keeps_nothing_for_a_shared_beginning_opens_nothing_ahead(nano: Loaded) -> None:
    engine = served_once(Engine(nano, policy=replace(POLICY, prefix_idle_s=0.0)))
    assert len(slots_opened(engine)) == 1


def test_a_session_has_its_slot_already(nano: Loaded) -> None:
    engine = Engine(nano)
    engine.start(1, "set the lab fan to 40 percent", 20, session="chat")
    engine.run()
    settle(engine)
    assert len(slots_opened(engine)) == 1
