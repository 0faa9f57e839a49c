"""The judgements, on numbers."""

from __future__ import annotations

import datetime

import pytest

from edged.errors import ConfigError
from edged.update.bundle import Golden
from edged.update.health import Answer, Limits, Plan, Vitals, judge_answer, judge_memory, judge_speed, judge_watch, plan
from edged.update.rollout import numbers, place
from edged.update.window import Window

LIMITS = Limits(runtime_bytes=0)


def answers(*tps: float, tokens: int = 20) -> list[Answer]:
    return [Answer("", tokens, one) for one in tps]


@pytest.mark.parametrize(
    ("answer", "share", "text", "right"),
    [
        ("abcdef", 1.0, "abcdef", True),
        ("abcdef", 1.0, "abcdefg", False),
        ("abcdef", 1.0, "abcde", False),
        ("abcdef", 0.5, "abcxyz", True),
        ("abcdef", 0.5, "abxxyz", False),
        ("abcdef", 0.0, "", True),
    ],
)
def test_golden_answers(answer: str, share: float, text: str, right: bool) -> None:
    golden = Golden(prompt="p", max_tokens=8, answer=answer, same_share=share)
    assert (judge_answer(golden, text) == "") is right


def test_speed_is_the_median_against_the_old_version() -> None:
    assert judge_speed(answers(7, 7, 100), answers(10, 10, 10), LIMITS) == ""
    assert "6.9 tokens/s" in judge_speed(answers(6.9, 6.9, 100), answers(10), LIMITS)
    assert judge_speed(answers(1, tokens=2), answers(10), LIMITS) == ""
    assert judge_speed(answers(1), [], LIMITS) == ""


def test_memory_may_exceed_the_estimate_by_five_percent() -> None:
    assert judge_memory(1050, 1000, LIMITS) == ""
    assert judge_memory(1051, 1000, LIMITS)
    assert judge_memory(None, 1000, LIMITS) == ""
    assert judge_memory(10**9, 0, LIMITS) == ""


@pytest.mark.parametrize(
    ("vitals", "verdict"),
    [
        (Vitals(10, 5, 0, 0, 10), None),
        (Vitals(300, 5, 0, 0, 10), None),
        (Vitals(3600, 5, 0, 0, 1), ""),
        (Vitals(300, 20, 0, 0, 7), ""),
        (Vitals(300, 20, 0, 0, 6.9), "decodes 6.9"),
        (Vitals(1, 1, 0, 1, None), "engine ended"),
        (Vitals(1, 1, 1, 0, None), None),
        (Vitals(1, 40, 3, 0, None), "3 of 40"),
        (Vitals(3600, 100, 5, 0, None), ""),
    ],
)
def test_the_watch(vitals: Vitals, verdict: str | None) -> None:
    found = judge_watch(vitals, 10.0, LIMITS)
    assert found == verdict if not verdict else found is not None and verdict in found


def test_the_plan_follows_the_ledger() -> None:
    assert plan(100, 100, running=True) is Plan.BESIDE
    assert plan(101, 100, running=True) is Plan.INSTEAD
    assert plan(101, 100, running=False) is Plan.BESIDE


def test_places_are_stable_even_and_dealt_anew_for_each_release() -> None:
    devices = [f"device-{number}" for number in range(10_000)]
    places = [place(device, "nano", 7) for device in devices]
    assert places == [place(device, "nano", 7) for device in devices]
    assert all(0 <= one < 100 for one in places)
    for percent in (1, 10, 33, 50, 90):
        share = sum(one < percent for one in places) / len(places) * 100
        assert share == pytest.approx(percent, abs=1.5)
    first = {device for device in devices if place(device, "nano", 7) < 10}
    second = {device for device in devices if place(device, "nano", 8) < 10}
    assert len(first & second) < len(first) / 4


def test_version_numbers() -> None:
    assert numbers("1.10") > numbers("1.9.9")
    assert numbers("1.0.0") == numbers("1")
    assert numbers("0.2.dev3") == (0, 2)


def at(text: str) -> float:
    return datetime.datetime.fromisoformat(f"{text}+00:00").timestamp()


def test_windows() -> None:
    night = Window.parse("22:00-04:30", datetime.UTC)
    assert night.is_open(at("2026-03-04T23:00"))
    assert night.is_open(at("2026-03-04T04:29"))
    assert not night.is_open(at("2026-03-04T04:30"))
    weekend = Window.parse("sat,sun 22:00-06:00", datetime.UTC)
    assert weekend.is_open(at("2026-03-09T05:00"))  # the night from Sunday to Monday
    assert not weekend.is_open(at("2026-03-09T23:00"))
    assert not weekend.is_open(at("2026-03-07T05:00"))
    assert str(weekend) == "sat,sun 22:00-06:00"
    day = Window.parse("08:00-24:00", datetime.UTC)
    assert day.is_open(at("2026-03-09T23:59"))
    assert not day.is_open(at("2026-03-09T00:00"))


@pytest.mark.parametrize("text", ["", "2-4", "25:00-26:00", "xyz 02:00-03:00", "02:00", "02:00-03:60"])
def test_windows_that_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="maintenance window"):
        Window.parse(text)
