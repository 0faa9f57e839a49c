"""The engine's arithmetic and order: admission, ledger, kept prefixes, the queue, the pace."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.engine.admission import Admit, Books, Reject, Wait, decide, slot_capacity
from edged.engine.job import Waiting
from edged.engine.ledger import Entry, Ledger
from edged.engine.pace import FIRST_SLICE_TOKENS, MAX_SLICE_TOKENS, Pace
from edged.engine.queue import AGEING_S, Queue
from edged.engine.sessions import Idle, Kept, common_prefix
from edged.errors import Busy
from edged.protocol import engine as wire

pytestmark = pytest.mark.aarch64

books = st.builds(
    Books,
    budget_bytes=st.integers(0, 10**6),
    running_bytes=st.integers(0, 10**6),
    idle_bytes=st.integers(0, 10**6),
    running=st.integers(0, 4),
    max_running=st.integers(1, 4),
    bytes_per_token=st.integers(1, 500),
    context_tokens=st.integers(16, 8192),
    admitting=st.booleans(),
)


@given(books, st.integers(1, 9000), st.integers(1, 9000) | st.none(), st.integers(1, 2000), st.integers(0, 500))
def test_nothing_is_admitted_above_the_budget(
    books: Books, prompt: int, max_tokens: int | None, default: int, room: int
) -> None:
    outcome = decide(prompt, max_tokens, default, books, room_tokens=room)
    if isinstance(outcome, Admit):
        kv_bytes = outcome.capacity_tokens * books.bytes_per_token
        idle_left = max(0, books.idle_bytes - outcome.reclaim_bytes)
        assert books.running_bytes + idle_left + kv_bytes <= books.budget_bytes
        assert prompt + outcome.max_tokens <= outcome.capacity_tokens <= books.context_tokens
        assert outcome.reclaim_bytes <= books.idle_bytes  # never more than there is to give back
        assert max_tokens is None or outcome.max_tokens == max_tokens
    elif isinstance(outcome, Reject):
        assert prompt + (max_tokens or 1) > outcome.max_tokens_fit  # what is said to fit really did not ask for less
    else:
        assert isinstance(outcome, Wait)


@given(books, st.integers(1, 8192), st.integers(1, 8192) | st.none(), st.integers(1, 2000))
def test_what_fits_alone_is_admitted_when_nothing_runs(
    books: Books, prompt: int, max_tokens: int | None, default: int
) -> None:
    alone = Books(books.budget_bytes, 0, 0, 0, 1, books.bytes_per_token, books.context_tokens)
    fits = prompt + (max_tokens or 1) <= alone.most_tokens
    assert isinstance(decide(prompt, max_tokens, default, alone), Admit if fits else Reject)


@given(st.integers(1, 100_000), st.integers(256, 131_072))
def test_slots_come_in_few_sizes(tokens: int, context: int) -> None:
    capacity = slot_capacity(tokens, context)
    assert capacity >= min(tokens, context)
    assert capacity == context or capacity % 256 == 0
    assert capacity <= max(256, 2 * tokens)


def test_a_picked_answer_is_shortened_before_it_waits() -> None:
    tight = Books(1000, 700, 0, 1, 4, 1, 4096)
    assert decide(100, None, 1024, tight) == Admit(256, 112, 0)
    assert decide(100, 1024, 1024, tight) == Reject(1000, "memory")
    assert decide(100, 500, 1024, tight) == Wait("memory")
    assert decide(100, 100, 1024, Books(1000, 0, 0, 4, 4, 1, 4096)) == Wait("slots")
    assert decide(100, 100, 1024, Books(1000, 0, 0, 1, 4, 1, 4096, admitting=False)) == Wait("pressure")


steps = st.lists(st.tuples(st.sampled_from(["book", "end", "take", "free"]), st.integers(1, 50)), max_size=60)


@given(steps)
def test_the_ledger_always_knows_what_is_held(steps: list[tuple[str, int]]) -> None:
    ledger, live, kv = Ledger(), dict[int, bool](), dict[int, int]()
    for number, (what, size) in enumerate(steps, 1):
        running = [each for each, runs in live.items() if runs]
        idle = [each for each, runs in live.items() if not runs]
        if what == "book":
            ledger.book(number, Entry(f"request {number}", size % 3, size, size * 10, running=True))
            live[number], kv[number] = True, size * 10
        elif what == "end" and running:
            ledger.change(running[0], owner="idle", running=False)
            live[running[0]] = False
        elif what == "take" and idle:
            ledger.change(idle[0], owner="again", uid=size % 3, running=True)
            live[idle[0]] = True
        elif what == "free" and live:
            del live[victim := next(iter(live))]
            ledger.release(victim)
        assert ledger.running_bytes == sum(kv[each] for each, runs in live.items() if runs)
        assert ledger.idle_bytes == sum(kv[each] for each, runs in live.items() if not runs)
        assert [sum(held) for held in zip(*map(ledger.held_by, range(3)), strict=True)] == [
            ledger.running_bytes,
            ledger.idle_bytes,
        ]
        assert ledger.mismatch(live) is None
    assert ledger.mismatch(live | {10**6: True})


@given(st.lists(st.integers(0, 2), max_size=700), st.lists(st.integers(0, 2), max_size=700), st.integers(0, 600))
def test_the_common_beginning_is_exact(left: list[int], right: list[int], shared: int) -> None:
    left, right = [7] * shared + left, [7] * shared + right
    length = common_prefix(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]


def _kept(number: int, tokens: list[int], uid: int = 1, session: str | None = None) -> Kept:
    return Kept(number, SimpleNamespace(tokens=tokens), uid, session, float(number), 100)


def test_a_kept_prefix_is_found_for_its_own_user_only() -> None:
    idle = Idle()
    for kept in (
        _kept(1, [*range(20)]),
        _kept(2, [*range(30)]),
        _kept(3, [*range(40)], uid=2),
        _kept(4, [*range(40)], session="mine"),
        _kept(5, [*range(10)]),
    ):
        idle.keep(kept)
    prompt = [*range(35)]
    best = idle.best(1, prompt)
    assert best is not None
    assert best.number == 2  # the longest of this uid's anonymous ones
    assert idle.best(3, prompt) is None
    assert idle.best(1, [*range(12)]) is None  # too little in common to be worth it
    assert idle.session(1, "mine") is not None
    assert idle.session(2, "mine") is None
    assert [kept.number for kept in idle.to_give_back(150)] == [1, 2]  # the least recently used first


def _waiting(
    rid: int, received_s: float, priority: int = 5, client: bytes = b"c", deadline_s: float | None = None
) -> Waiting:
    return Waiting(wire.Start(rid, 1, client, "generate", {}, received_s, deadline_s, True), [1], 1, None, priority)


def test_priority_goes_first_and_age_beats_it_in_the_end() -> None:
    queue = Queue(limit=10, limit_per_client=10)
    queue.add(_waiting(1, received_s=0.0, priority=0))
    for rid in range(2, 6):
        queue.add(_waiting(rid, received_s=10 * AGEING_S - 10 + rid, priority=9))
    assert queue.in_order(10 * AGEING_S)[0].start.rid == 1  # nine steps of waiting are worth the nine of priority
    queue = Queue(limit=10, limit_per_client=10)
    for rid, priority in ((1, 0), (2, 9), (3, 5), (4, 9)):
        queue.add(_waiting(rid, received_s=rid / 1000, priority=priority))
    assert [waiting.start.rid for waiting in queue.in_order(1.0)] == [2, 4, 3, 1]


def test_nobody_starves_however_many_come_with_more_priority() -> None:
    queue = Queue(limit=100, limit_per_client=100)
    queue.add(_waiting(0, received_s=0.0, priority=0))
    now_s, rid = 0.0, 0
    while True:
        now_s, rid = now_s + 1.0, rid + 1
        queue.add(_waiting(rid, received_s=now_s, priority=9))
        first = queue.in_order(now_s)[0]
        queue.take(first)
        if first.start.rid == 0:
            break
        assert now_s < 10 * AGEING_S + 2, "the first request starves"
    assert now_s > AGEING_S  # priority did count for a while


def test_the_queue_has_its_ceilings_and_deadlines() -> None:
    queue = Queue(limit=3, limit_per_client=2)
    queue.add(_waiting(1, 0.0, deadline_s=5.0))
    queue.add(_waiting(2, 0.0))
    with pytest.raises(Busy, match="share"):
        queue.check_room(b"c", 250)
    queue.check_room(b"other", 250)
    queue.add(_waiting(3, 0.0, client=b"other"))
    with pytest.raises(Busy) as caught:
        queue.check_room(b"third", 250)
    assert caught.value.retry_after_ms == 250
    assert [waiting.start.rid for waiting in queue.overdue(4.9)] == []
    assert [waiting.start.rid for waiting in queue.overdue(5.0)] == [1]


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(1e-4, 10)), max_size=20), st.floats(0.01, 1))
def test_slices_stay_within_bounds_and_calls_may_take_longer_than_measured(
    slices: list[tuple[int, float]], slice_s: float
) -> None:
    pace = Pace(slice_s)
    for tokens, took_s in slices:
        pace.prefilled(tokens, took_s)
        assert FIRST_SLICE_TOKENS <= pace.slice_tokens() <= MAX_SLICE_TOKENS
        assert pace.prefill_allowed_s(tokens) > tokens / pace.prefill_tps
    steady = Pace(slice_s)
    for _ in range(50):
        steady.prefilled(100, 0.5)
    assert steady.slice_tokens() == max(FIRST_SLICE_TOKENS, min(MAX_SLICE_TOKENS, int(200 * slice_s)))


@pytest.mark.parametrize(
    ("pass_s", "alone_s", "expected"),
    [
        (0.0, 4.0, 35),  # nothing known of a pass: as among others
        (0.001, 4.0, 35),  # a small model: passes cost little, so short slices do
        (0.05, 4.0, 320),
        (0.1, 2.0, 200),  # the owner's ceiling
        (0.1, 0.0, 35),
    ],
)
def test_who_reads_alone_gets_slices_in_which_a_pass_costs_little(pass_s: float, alone_s: float, expected: int) -> None:
    pace = Pace(0.35, alone_s)
    pace.prefilled(100, 1.0)
    if pass_s:
        pace.prefilled(2, 0.02 + pass_s)
    pace.stepped(10.0)  # a decode step takes other kernels
    assert pace.slice_tokens(alone=True) == expected
    assert pace.slice_tokens() == pace.slice_tokens(36) == 35
    assert pace.slice_tokens(expected + expected // 2, alone=True) == expected + expected // 2
    assert pace.slice_tokens(expected + expected // 2 + 1, alone=True) == expected
