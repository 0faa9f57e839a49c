"""Promises about an engine: kept in time, broken when late, and not put off by saying them again."""

from __future__ import annotations

from edged.serving.recovery import Recovery


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_promise_is_broken_only_when_it_is_late() -> None:
    clock = Clock()
    recovery = Recovery(clock)
    assert recovery.broken() == ""
    recovery.promise("its end", 30)
    clock.now_s += 29
    recovery.promise("its end", 30)  # killed again: no time is gained
    assert recovery.broken() == ""
    clock.now_s += 2
    assert recovery.broken() == "its end"
    recovery.kept()
    assert recovery.broken() == ""


def test_another_promise_takes_the_place_of_the_one_before() -> None:
    clock = Clock()
    recovery = Recovery(clock)
    recovery.promise("its end", 30)
    clock.now_s += 20
    recovery.promise("a new engine", 30)
    clock.now_s += 29
    assert recovery.broken() == ""
    clock.now_s += 2
    assert recovery.broken() == "a new engine"


def test_an_engine_nobody_looks_at_any_more_is_noticed() -> None:
    clock = Clock()
    recovery = Recovery(clock)
    recovery.watched(5)
    clock.now_s += 4
    recovery.watched(5)
    clock.now_s += 4
    assert recovery.broken() == ""
    clock.now_s += 2
    assert recovery.broken() == "a look at the engine"
