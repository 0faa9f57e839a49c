"""How hard to work, given the heat: a pure function from temperatures to a share of full speed."""

from __future__ import annotations

from dataclasses import dataclass

from edged.hardware.board import BoardKind
from edged.hardware.thermal import ThermalReading, Zone

HEAT_FLAGS = ("throttled", "soft temperature limit", "slowed by")
"""Throttling by heat or power that less work cures; under-voltage alone is a bad cable, and is only told."""


@dataclass(frozen=True)
class ThermalLimits:
    """When to hold back. Temperatures in degrees Celsius, shares 0-1 of full speed.

    A zone's limit is where its board begins to slow down (passive trip point); without one it is `guard_c` below the
    critical one; without either `unknown_c`. `ceiling_c` lowers all of them.
    """

    ceiling_c: float | None = None
    unknown_c: float = 90.0
    guard_c: float = 5.0
    ramp_c: float = 5.0
    """Full speed up to this far below the limit, then falling to `floor` at it."""
    recover_c: float = 3.0
    """Speed rises again only for temperatures this much lower than those it fell at."""
    rise: float = 0.1
    """The most that the share rises from one reading to the next."""
    floor: float = 0.25
    throttled: float = 0.5
    """The share while the hardware itself says that it is slowed down."""


RASPBERRY_PI = ThermalLimits(ceiling_c=80.0)
"""The firmware slows down from 80 °C (Raspberry Pi documentation, frequency management); no trip point tells it."""


def limits_for(kind: BoardKind) -> ThermalLimits:
    """The defaults for a family of boards."""
    return RASPBERRY_PI if kind is BoardKind.RASPBERRY_PI else ThermalLimits()


@dataclass(frozen=True)
class Duty:
    """1.0 is full speed. `reason` says what holds it down ("" at full speed)."""

    share: float = 1.0
    reason: str = ""
    throttle_events: int | None = None

    def pause_s(self, busy_s: float) -> float:
        """How long to rest after `busy_s` seconds of work, so that work is `share` of the time."""
        return busy_s * (1 / self.share - 1)

    def slots(self, most: int) -> int:
        """How many requests to step in turn, of `most`; never less than one."""
        return max(1, int(most * self.share))


FULL = Duty()


def duty(reading: ThermalReading, limits: ThermalLimits = ThermalLimits(), was: Duty = FULL) -> Duty:
    """The next share, from one reading and the share before.

    Falls at once; rises by small steps and only when it has become clearly cooler, so that it does not swing.
    """
    margins = {zone: zone_limit_c(zone, limits) - zone.celsius for zone in judged_zones(reading)}
    hottest = min(margins, key=margins.__getitem__, default=None)
    share, reason = 1.0, ""
    if hottest is not None:
        margin_c = margins[hottest]
        share = _ramp(margin_c, limits)
        if share > was.share:
            share = max(was.share, _ramp(margin_c - limits.recover_c, limits))
        reason = f"{hottest.name} is at {hottest.celsius:.1f} °C, its limit is {zone_limit_c(hottest, limits):.1f} °C"
    slowed = _hardware_slows(reading, was)
    if slowed and limits.throttled <= share:
        share, reason = limits.throttled, slowed
    share = max(limits.floor, min(share, was.share + limits.rise, 1.0))
    return Duty(share, reason if share < 1.0 else "", reading.throttling.events)


def judged_zones(reading: ThermalReading) -> list[Zone]:
    """The processors' sensors that tell a limit, or all of them where none does (a Jetson's tj-thermal has only fan
    trips, and repeats the warmest of its neighbours)."""
    zones = [zone for zone in reading.zones if zone.processor]
    return [zone for zone in zones if zone.passive_c is not None or zone.critical_c is not None] or zones


def zone_limit_c(zone: Zone, limits: ThermalLimits) -> float:
    """The temperature at which `zone` should not be kept."""
    own_c = zone.passive_c
    if own_c is None:
        own_c = limits.unknown_c if zone.critical_c is None else zone.critical_c - limits.guard_c
    return own_c if limits.ceiling_c is None else min(own_c, limits.ceiling_c)


def _ramp(margin_c: float, limits: ThermalLimits) -> float:
    """1 far below the limit, `floor` at it and above."""
    return min(1.0, max(limits.floor, limits.floor + (1 - limits.floor) * margin_c / limits.ramp_c))


def _hardware_slows(reading: ThermalReading, was: Duty) -> str:
    for flag in reading.throttling.now:
        if flag.startswith(HEAT_FLAGS):
            return f"the hardware slows down: {flag}"
    if was.throttle_events is not None and reading.throttling.events > was.throttle_events:
        return "the hardware slows down: thermal throttle events"
    return ""
