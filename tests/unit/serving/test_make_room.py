"""Who leaves so that another model can be loaded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.errors import Busy, Unavailable
from edged.serving.make_room import Load, Refuse, Resident, make_room

OLD, NEW = Resident("old", 100, 1.0, busy=False), Resident("new", 300, 2.0, busy=False)
WORKS = Resident("works", 500, 0.0, busy=True)


def room(needed: int, free: int, *residents: Resident, most: int = 9, may_evict: bool = True) -> Load | Refuse:
    return make_room("wanted", needed, free, residents, most=most, may_evict=may_evict)


def test_where_it_fits_nobody_leaves() -> None:
    assert room(50, 60, OLD, NEW, WORKS) == Load()


def test_what_was_used_least_recently_leaves_first() -> None:
    assert room(150, 60, NEW, OLD, WORKS) == Load(("old",))
    assert room(70, 60, OLD, NEW, WORKS, most=3) == Load(("old",))


def test_whoever_would_leave_for_nothing_stays() -> None:
    assert room(350, 60, OLD, NEW) == Load(("new",))
    assert room(450, 60, OLD, NEW) == Load(("old", "new"))


def test_a_model_that_works_is_waited_for() -> None:
    refused = room(900, 60, OLD, NEW, WORKS)
    assert isinstance(refused, Refuse)
    assert isinstance(refused.error, Busy)
    assert "works" in refused.error.message
    assert refused.error.retry_after_ms
    full = room(1, 60, WORKS, most=1)
    assert isinstance(full, Refuse)
    assert "at most 1 models" in full.error.message


def test_what_can_never_fit_is_said_in_numbers_and_nobody_leaves_for_it() -> None:
    refused = room(2000 * 2**20, 60 * 2**20, OLD)
    assert isinstance(refused, Refuse)
    assert isinstance(refused.error, Unavailable)
    assert "needs 2000 MiB, 60 MiB could be free" in refused.error.message


def test_where_a_request_may_not_unload_it_says_who_is_in_the_way() -> None:
    refused = room(150, 60, OLD, NEW, may_evict=False)
    assert isinstance(refused, Refuse)
    assert "old" in refused.error.message
    assert room(50, 60, OLD, may_evict=False) == Load()


RESIDENTS = st.lists(st.tuples(st.integers(0, 100), st.floats(0, 100), st.booleans()), max_size=6)


@given(RESIDENTS, st.integers(0, 400), st.integers(0, 200), st.integers(1, 7))
def test_what_is_decided_really_fits_and_never_ends_work(
    drawn: list[tuple[int, float, bool]], needed: int, free: int, most: int
) -> None:
    residents = [Resident(str(number), *values) for number, values in enumerate(drawn)]
    outcome = make_room("wanted", needed, free, residents, most=most, may_evict=True)
    if isinstance(outcome, Load):
        leaving = [each for each in residents if each.name in outcome.evict]
        assert not any(each.busy for each in leaving)
        assert free + sum(each.promised_bytes for each in leaving) >= needed
        assert len(residents) - len(leaving) < most
    else:
        idle = [each for each in residents if not each.busy]
        assert free + sum(each.promised_bytes for each in idle) < needed or len(residents) - len(idle) >= most
