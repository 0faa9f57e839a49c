"""Heat: what is read, and how hard edged works at it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.hardware.board import BoardKind
from edged.hardware.duty import FULL, Duty, ThermalLimits, duty, limits_for, zone_limit_c
from edged.hardware.thermal import ThermalReading, Zone, read_thermal
from edged.hardware.throttle import Throttling
from tests.unit.hardware.trees import plant

LIMITS = ThermalLimits()
TEMPERATURES = st.floats(0, 149, allow_nan=False)


def at(celsius: float, *flags: str, events: int = 0) -> ThermalReading:
    """A board whose only zone slows down at 95 °C."""
    return ThermalReading((Zone("cpu-thermal", celsius, 95.0, 105.0),), Throttling(flags, (), events))


def test_trip_points_and_sensors(tmp_path: Path) -> None:
    zone = "sys/class/thermal/thermal_zone"
    tree = {
        f"{zone}0/type": "soc-thermal",
        f"{zone}0/temp": "61250",
        f"{zone}0/trip_point_0_type": "active",
        f"{zone}0/trip_point_0_temp": "50000",
        f"{zone}0/trip_point_1_type": "passive",
        f"{zone}0/trip_point_1_temp": "85000",
        f"{zone}0/trip_point_2_type": "passive",
        f"{zone}0/trip_point_2_temp": "75000",
        f"{zone}0/trip_point_3_type": "critical",
        f"{zone}0/trip_point_3_temp": "115000",
        f"{zone}1/type": "PMIC-Die",
        f"{zone}1/temp": "100000",
        f"{zone}2/type": "gpu-thermal",
        f"{zone}2/temp": "-256000",
        f"{zone}3/type": "cpu-thermal",
        f"{zone}3/temp": "warm",
        f"{zone}10/type": "x86_pkg_temp",
        f"{zone}10/temp": "92000",
    }
    reading = read_thermal(plant(tmp_path, tree))
    assert reading.zones == (
        Zone("soc-thermal", 61.25, 75.0, 115.0),
        Zone("PMIC-Die", 100.0),
        Zone("x86_pkg_temp", 92.0),
    )
    assert [zone.processor for zone in reading.zones] == [True, False, True]
    assert duty(ThermalReading(reading.zones[:2], Throttling())) == Duty(1.0, "", 0)


def test_coretemp_takes_the_place_of_the_zone_without_limits(tmp_path: Path) -> None:
    tree = {
        "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp",
        "sys/class/thermal/thermal_zone0/temp": "92000",
        "sys/class/hwmon/hwmon0/name": "nvme",
        "sys/class/hwmon/hwmon0/temp1_input": "40000",
        "sys/class/hwmon/hwmon4/name": "coretemp",
        "sys/class/hwmon/hwmon4/temp1_input": "92000",
        "sys/class/hwmon/hwmon4/temp1_label": "Package id 0",
        "sys/class/hwmon/hwmon4/temp1_crit": "105000",
    }
    assert read_thermal(plant(tmp_path, tree)).zones == (Zone("coretemp Package id 0", 92.0, None, 105.0),)


@pytest.mark.parametrize(
    ("answer", "now", "since_boot"),
    [
        ("throttled=0x0", (), ()),
        ("throttled=0x50000", (), ("under-voltage", "throttled")),
        (
            "throttled=0xf000f",
            ("under-voltage", "frequency capped", "throttled", "soft temperature limit"),
            ("under-voltage", "frequency capped", "throttled", "soft temperature limit"),
        ),
        ("VCHI initialization failed", (), ()),
        ("throttled=", (), ()),
    ],
)
def test_raspberry_pi_flags(tmp_path: Path, answer: str, now: tuple[str, ...], since_boot: tuple[str, ...]) -> None:
    reading = read_thermal(plant(tmp_path, {"dev/vcio": "", "tools/vcgencmd.txt": answer}))
    assert (reading.throttling.now, reading.throttling.since_boot) == (now, since_boot)


def test_the_firmwares_file_is_preferred_to_its_tool(tmp_path: Path) -> None:
    tree = {
        "sys/devices/platform/soc/soc:firmware/get_throttled": "40004",
        "dev/vcio": "",
        "tools/vcgencmd.txt": "throttled=0x0",
    }
    assert read_thermal(plant(tmp_path, tree)).throttling == Throttling(("throttled",), ("throttled",))


def test_only_devices_that_slow_us_down_count(tmp_path: Path) -> None:
    cooling = "sys/class/thermal/cooling_device"
    names = ["pwm-fan", "cpu-throttle-alert", "devfreq-gpu-gpc-0", "thermal-cpufreq-0", "intel_powerclamp"]
    tree = {f"{cooling}{index}/type": name for index, name in enumerate(names)}
    states = {f"{cooling}{index}/cur_state": text for index, text in enumerate(["3", "1", "18", "2", "-1"])}
    counter = {"sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "17"}
    throttling = read_thermal(plant(tmp_path, {**tree, **states, **counter})).throttling
    assert throttling == Throttling(("slowed by cpu-throttle-alert", "slowed by thermal-cpufreq-0"), (), 17)


def test_full_speed_until_five_degrees_below_the_limit_then_down_to_the_floor() -> None:
    assert [duty(at(celsius)).share for celsius in (20, 89.9, 90)] == [1.0, 1.0, 1.0]
    assert duty(at(92.5)).share == pytest.approx((1 + LIMITS.floor) / 2)
    assert [duty(at(celsius)).share for celsius in (95, 99, 140)] == [LIMITS.floor] * 3
    assert duty(at(92.5)).reason == "cpu-thermal is at 92.5 °C, its limit is 95.0 °C"
    assert duty(at(20)).reason == ""


def test_the_zone_nearest_its_own_limit_decides() -> None:
    reading = ThermalReading((Zone("cpu-thermal", 92, 105), Zone("gpu-thermal", 79, 80)), Throttling())
    assert "gpu-thermal" in duty(reading).reason


def test_limits_per_board() -> None:
    pi, jetson = limits_for(BoardKind.RASPBERRY_PI), limits_for(BoardKind.JETSON)
    assert zone_limit_c(Zone("cpu-thermal", 50, None, 110), pi) == 80
    assert zone_limit_c(Zone("cpu-thermal", 50, 95, 104.5), jetson) == 95
    assert zone_limit_c(Zone("coretemp", 50, None, 100), jetson) == 95
    assert zone_limit_c(Zone("k10temp Tctl", 50), jetson) == 90


def test_it_slows_at_once_and_recovers_in_small_steps() -> None:
    slowed = duty(at(95))
    still_warm = duty(at(91.9), was=slowed)
    assert slowed.share < still_warm.share <= slowed.share + LIMITS.rise
    shares, now = [], slowed
    for _ in range(12):
        now = duty(at(60), was=now)
        shares.append(now.share)
    assert shares[0] == pytest.approx(LIMITS.floor + LIMITS.rise)
    assert all(later > earlier for earlier, later in pairwise(shares[:7]))
    assert shares[-1] == 1.0


def test_a_degree_more_or_less_does_not_make_it_swing() -> None:
    now = duty(at(93))
    for celsius in (92, 93, 92, 93, 91.5):
        share = now.share
        now = duty(at(celsius), was=now)
        assert now.share == share


def test_hardware_that_slows_down_by_itself_is_believed() -> None:
    assert duty(at(50, "throttled")) == Duty(LIMITS.throttled, "the hardware slows down: throttled", 0)
    assert duty(at(50, "slowed by gpu-throttle-alert")).share == LIMITS.throttled
    assert duty(at(50, "under-voltage")).share == 1.0
    assert duty(at(95, "throttled")).share == LIMITS.floor


def test_throttle_events_count_only_when_they_grow() -> None:
    first = duty(at(50, events=1000))
    assert first.share == 1.0
    assert duty(at(50, events=1000), was=first).share == 1.0
    assert duty(at(50, events=1001), was=first).share == LIMITS.throttled


def test_pauses_make_work_the_share_of_time() -> None:
    assert FULL.pause_s(0.1) == 0
    assert Duty(0.5).pause_s(0.1) == pytest.approx(0.1)
    assert Duty(0.25).pause_s(0.1) == pytest.approx(0.3)
    assert [Duty(0.25).slots(most) for most in (1, 4, 16)] == [1, 1, 4]


@given(TEMPERATURES, TEMPERATURES, st.floats(0.25, 1))
def test_hotter_is_never_faster_and_the_share_stays_in_its_bounds(low: float, high: float, was: float) -> None:
    low, high = sorted((low, high))
    before = Duty(was)
    cooler, hotter = duty(at(low), was=before), duty(at(high), was=before)
    assert LIMITS.floor <= hotter.share <= cooler.share <= min(1.0, was + LIMITS.rise)


@given(st.floats(10, 40), st.floats(20, 90))
def test_a_board_that_would_overheat_is_held_below_its_limit(ambient_c: float, full_speed_rise_c: float) -> None:
    """A board as one heat capacity: at full speed it would settle `full_speed_rise_c` above the room."""
    celsius, now, warmest = ambient_c, FULL, 0.0
    for _ in range(600):
        now = duty(at(celsius), was=now)
        celsius += 0.05 * (ambient_c + full_speed_rise_c * now.share - celsius)
        warmest = max(warmest, celsius)
    assert warmest < 96
    if ambient_c + full_speed_rise_c < 89:
        assert now.share == 1.0
