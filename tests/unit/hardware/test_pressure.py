"""Memory pressure: read where the kernel tells it, judged by numbers alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.hardware.pressure import PressureLevel, PressureLimits, PressureReading, Stall, pressure_level, read_pressure
from tests.unit.hardware.trees import cgroup2_mount, plant

GIB = 1 << 30
PSI = "some avg10={some} avg60=1.00 avg300=0.50 total=123456\nfull avg10={full} avg60=0.00 avg300=0.00 total=1234\n"
LIMITS = PressureLimits()


def test_machine_and_group_are_read_and_the_worse_counts(tmp_path: Path) -> None:
    tree = {
        "proc/pressure/memory": PSI.format(some="2.40", full="1.20"),
        "proc/self/cgroup": "0::/edged\n",
        "proc/self/mountinfo": cgroup2_mount(),
        "sys/fs/cgroup/edged/memory.pressure": PSI.format(some="11.00", full="0.10"),
    }
    reading = read_pressure(plant(tmp_path, tree))
    assert reading == PressureReading(machine=Stall(2.4, 1.2), cgroup=Stall(11.0, 0.1))
    assert reading.worst == Stall(11.0, 1.2)


@pytest.mark.parametrize("text", ["", "\n\n", "some\n", "some avg10=x avg60=1\n", "some avg10=nan avg60=0.00", "full"])
def test_garbage_is_no_reading(tmp_path: Path, text: str) -> None:
    reading = read_pressure(plant(tmp_path, {"proc/pressure/memory": text}))
    assert reading.worst is None


def test_a_kernel_without_psi_leaves_the_headroom_to_decide(tmp_path: Path) -> None:
    worst = read_pressure(tmp_path).worst
    assert worst is None
    assert pressure_level(worst, GIB) is PressureLevel.NONE
    assert pressure_level(worst, LIMITS.low_headroom_bytes - 1) is PressureLevel.LOW
    assert pressure_level(worst, LIMITS.critical_headroom_bytes - 1) is PressureLevel.CRITICAL


def test_stalls_raise_the_level_whatever_the_headroom_says() -> None:
    assert pressure_level(Stall(9.99, 9.99), 8 * GIB) is PressureLevel.NONE
    assert pressure_level(Stall(10.0, 0.0), 8 * GIB) is PressureLevel.LOW
    assert pressure_level(Stall(50.0, 10.0), 8 * GIB) is PressureLevel.CRITICAL


def test_a_level_is_left_only_well_below_where_it_began() -> None:
    low, critical = PressureLevel.LOW, PressureLevel.CRITICAL
    assert pressure_level(Stall(6.0, 0.0), 8 * GIB, was=low) is low
    assert pressure_level(Stall(4.9, 0.0), 8 * GIB, was=low) is PressureLevel.NONE
    assert pressure_level(Stall(30.0, 6.0), 8 * GIB, was=critical) is critical
    assert pressure_level(Stall(30.0, 4.0), 8 * GIB, was=critical) is low
    assert pressure_level(None, LIMITS.low_headroom_bytes, was=low) is low
    assert pressure_level(None, 2 * LIMITS.low_headroom_bytes, was=low) is PressureLevel.NONE


def test_this_machine_reads_without_raising() -> None:
    worst = read_pressure().worst
    assert worst is None or 0 <= worst.full_avg10 <= worst.some_avg10 <= 100
