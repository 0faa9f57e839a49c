"""Checks of the machine: memory, clock, heat."""

from __future__ import annotations

import ctypes
import datetime

from edged.doctor.check import Check, Level
from edged.hardware.memory import MemoryReading
from edged.hardware.pressure import PressureLevel
from edged.hardware.thermal import ThermalReading

LOW_MEMORY_BYTES = 256 * 2**20
NEAR_PASSIVE_C = 5.0
_CLOCK_NOT_SET_BEFORE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # struct timex has 208 on 64-bit Linux; modes 0 only reads


def check_memory(reading: MemoryReading, pressure: PressureLevel) -> Check:
    """What is left now, by the machine or by the tightest cgroup, and whether anybody waits for memory."""
    name = "memory"
    left, total = reading.headroom_bytes, reading.usable_total_bytes
    found = f"{left / 2**30:.1f} of {total / 2**30:.1f} GiB left (by {reading.binding})"
    if pressure is PressureLevel.CRITICAL:
        return Check(name, Level.FAIL, f"{found}, pressure critical", "stop what else runs, or use a smaller model")
    if left < LOW_MEMORY_BYTES or pressure is not PressureLevel.NONE:
        return Check(
            name, Level.WARN, f"{found}, pressure {pressure.name.lower()}", "see `edged status`, `edged estimate`"
        )
    return Check(name, Level.OK, found)


def check_clock(now: datetime.datetime, synchronised: bool | None) -> Check:
    """Updates are judged by time: a clock before this program was made is wrong, one that nobody sets may become so."""
    name = "clock"
    found = now.astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < _CLOCK_NOT_SET_BEFORE:
        return Check(
            name, Level.FAIL, f"{found} is in the past", "set it: timedatectl set-ntp true, or a battery for the clock"
        )
    if synchronised is None:
        return Check(name, Level.OK, f"{found} (whether it is synchronised cannot be seen)")
    if not synchronised:
        return Check(name, Level.WARN, f"{found}, not synchronised", "timedatectl set-ntp true; updates need the time")
    return Check(name, Level.OK, f"{found}, synchronised")


def clock_synchronised() -> bool | None:
    """What the kernel says of its clock (adjtimex(2) with nothing to set); None where it does not say."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR


def check_heat(thermal: ThermalReading) -> Check:
    """Zones that our work heats against their limits, and whether the hardware slows itself down."""
    name = "temperature"
    zones = [zone for zone in thermal.zones if zone.processor]
    hottest = max(zones, key=lambda zone: zone.celsius, default=None)
    found = f"{hottest.celsius:.0f} °C ({hottest.name})" if hottest else "no sensor"
    if thermal.throttling.now:
        slowed = ", ".join(thermal.throttling.now)
        todo = "a stronger supply" if "under-voltage" in slowed else "a fan, a heat sink, or a cooler place"
        return Check(name, Level.WARN, f"{found}, slowed down now: {slowed}", todo)
    near = [zone for zone in zones if zone.passive_c is not None and zone.celsius > zone.passive_c - NEAR_PASSIVE_C]
    if near:
        return Check(name, Level.WARN, f"{found}, close to where {near[0].name} is slowed", "a fan, or a cooler place")
    if thermal.throttling.since_boot:
        return Check(name, Level.WARN, f"{found}, since boot: {', '.join(thermal.throttling.since_boot)}", "watch it")
    return Check(name, Level.OK, found)
