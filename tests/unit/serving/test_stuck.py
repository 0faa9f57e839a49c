"""When an engine counts as stuck: by what it announced, at a second look, never because the front itself slept."""

from __future__ import annotations

import pytest

from edged.protocol.pulse import Beat
from edged.serving.stuck import START_ALLOWED_S, HangRule, Verdict, Watch

RULE = HangRule(factor=3.0, floor_s=10.0)
LOAD_S, APART_S = 100.0, 0.125


@pytest.fixture
def watch() -> Watch:
    made = Watch(RULE, LOAD_S, APART_S)
    made.begin()
    return made


def looks(watch: Watch, beat: Beat, *at_s: float) -> list[Verdict]:
    return [watch.judge(beat, 0.0, now_s) for now_s in at_s]


def test_a_call_may_last_as_long_as_it_said_times_the_factor(watch: Watch) -> None:
    watch.loaded()
    beat = Beat(2, 7, 1000.0, 20.0)
    assert looks(watch, beat, 1059.9, 1060.1, 1060.5) == [Verdict.FINE, Verdict.FINE, Verdict.HANGS]


def test_a_short_call_may_last_as_long_as_the_floor(watch: Watch) -> None:
    watch.loaded()
    assert looks(watch, Beat(2, 7, 1000.0, 0.1), 1009.9, 1010.1, 1010.5) == [Verdict.FINE, Verdict.FINE, Verdict.HANGS]


def test_two_looks_at_the_same_beat_must_agree(watch: Watch) -> None:
    """A front that slept for a minute looks at once when it wakes: the engine has had no time to say a word."""
    watch.loaded()
    assert looks(watch, Beat(2, 7, 1000.0, 1.0), 1060.0, 1060.05) == [Verdict.FINE, Verdict.FINE]
    assert looks(watch, Beat(4, 7, 1060.1, 1.0), 1060.2) == [Verdict.FINE]
    assert looks(watch, Beat(4, 7, 1060.1, 1.0), 1075.0, 1075.2) == [Verdict.FINE, Verdict.HANGS]


def test_loading_has_a_limit_however_alive_it_is(watch: Watch) -> None:
    first = Beat(2, 0, 5.0, 1.0)
    assert looks(watch, first, 6.0) == [Verdict.FINE]
    late_s = 5.0 + LOAD_S
    assert looks(watch, Beat(300, 0, late_s, 1.0), late_s - 0.1) == [Verdict.FINE]
    assert looks(watch, Beat(302, 0, late_s, 1.0), late_s + 0.1) == [Verdict.FINE]
    assert looks(watch, Beat(304, 0, late_s, 1.0), late_s + 0.3) == [Verdict.LATE]


def test_a_model_that_has_answered_is_not_late_any_more(watch: Watch) -> None:
    looks(watch, Beat(2, 0, 5.0, 1.0), 6.0)
    watch.loaded()
    assert looks(watch, Beat(4, 0, 999.0, 1.0), 1000.0, 1000.2) == [Verdict.FINE, Verdict.FINE]


def test_a_process_that_never_said_anything_has_its_time_too(watch: Watch) -> None:
    silent = Beat(0, 0, 0.0, 0.0)
    assert looks(watch, silent, START_ALLOWED_S - 1) == [Verdict.FINE]
    assert looks(watch, silent, START_ALLOWED_S + 1, START_ALLOWED_S + 1.2) == [Verdict.FINE, Verdict.HANGS]


def test_the_next_process_begins_without_suspicion(watch: Watch) -> None:
    watch.loaded()
    looks(watch, Beat(2, 7, 1000.0, 1.0), 1060.0)
    watch.begin()
    assert looks(watch, Beat(2, 7, 1000.0, 1.0), 1060.2) == [Verdict.FINE]
