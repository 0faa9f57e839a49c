"""How warm the processors are and how warm they may get: kernel thermal zones, and hwmon where a PC has only that."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edged.hardware.throttle import Throttling, read_throttling
from edged.hardware.tree import Tree

PROCESSOR_ZONE = re.compile(r"cpu|gpu|npu|soc|core|center|tj|cv\d|pkg|package|tctl|tdie|edge", re.IGNORECASE)
"""Zones that warm with our work. Others (PMIC-Die is a constant 100 °C on some Jetsons) are shown, not judged."""

HWMON_CHIPS = ("coretemp", "k10temp", "zenpower", "amdgpu")
"""Drivers whose sensors are no thermal zones (coretemp's zone, x86_pkg_temp, lacks the limit that hwmon has)."""

SENSIBLE_C = (0.0, 150.0)
"""Outside of it a sensor is off (-256 on an idle Jetson GPU, -274 for a trip point not set)."""


@dataclass(frozen=True)
class Zone:
    """One sensor, in degrees Celsius. The kernel slows down at `passive_c` and powers off at `critical_c`."""

    name: str
    celsius: float
    passive_c: float | None = None
    critical_c: float | None = None

    @property
    def processor(self) -> bool:
        """Whether it measures something that our work heats."""
        return bool(PROCESSOR_ZONE.search(self.name))


@dataclass(frozen=True)
class ThermalReading:
    """One look at heat."""

    zones: tuple[Zone, ...]
    throttling: Throttling


def read_thermal(root: Path | Tree = Path("/")) -> ThermalReading:
    """Reads every sensor that answers with a sensible number."""
    tree = Tree.of(root)
    chips = _hwmon(tree)
    zones = [zone for zone in _thermal_zones(tree) if not (chips and zone.name == "x86_pkg_temp")]
    return ThermalReading((*zones, *chips), read_throttling(tree))


def _thermal_zones(tree: Tree) -> list[Zone]:
    """/sys/class/thermal (Linux Documentation/driver-api/thermal/sysfs-api.rst), millidegrees."""
    zones = []
    for path in tree.glob("sys/class/thermal/thermal_zone*"):
        celsius = _celsius(tree, f"{path}/temp")
        if celsius is None:
            continue
        trips: dict[str, list[float]] = {}
        for trip in tree.glob(f"{path}/trip_point_*_type"):
            at_c = _celsius(tree, trip.removesuffix("type") + "temp")
            if at_c is not None:
                trips.setdefault(tree.text(trip), []).append(at_c)
        zones.append(
            Zone(
                tree.text(f"{path}/type") or path.rpartition("/")[2],
                celsius,
                min(trips.get("passive", []), default=None),
                min(trips.get("critical", []), default=None),
            )
        )
    return zones


def _hwmon(tree: Tree) -> list[Zone]:
    """/sys/class/hwmon (Linux Documentation/hwmon/sysfs-interface.rst): one reading per package, not per core."""
    zones = []
    for path in tree.glob("sys/class/hwmon/hwmon*"):
        chip = tree.text(f"{path}/name")
        celsius = _celsius(tree, f"{path}/temp1_input")
        if chip in HWMON_CHIPS and celsius is not None:
            label = tree.text(f"{path}/temp1_label") or "temp1"
            zones.append(Zone(f"{chip} {label}", celsius, None, _celsius(tree, f"{path}/temp1_crit")))
    return zones


def _celsius(tree: Tree, path: str) -> float | None:
    millidegrees = tree.number(path)
    if millidegrees is None:
        return None
    celsius = millidegrees / 1000
    return celsius if SENSIBLE_C[0] < celsius < SENSIBLE_C[1] else None
