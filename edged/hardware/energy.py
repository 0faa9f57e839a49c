"""Energy that the box has used, in joules, from whatever meter it has.

Intel and AMD processors count energy themselves (/sys/class/powercap, readable by root only on most kernels: see
Documentation/power/powercap). Jetsons and some boards have INA sensors, which tell power: it is added up here between
two readings, so those must be read often to be true.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from edged.hardware.tree import Tree


class EnergyMeter:
    """Joules since it was made; owner of the sum. `name` says what is read, "" where there is nothing to read."""

    def __init__(self, tree: Tree | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._tree, self._clock = tree or Tree(), clock
        self._counters = {
            path: count for path in _packages(self._tree) if (count := self._tree.number(path)) is not None
        }
        self._sensor = None if self._counters else _sensor(self._tree)
        self.name = "RAPL" if self._counters else "INA" if self._sensor else ""
        self._joules, self._watts, self._at_s = 0.0, self._power_w(), clock()

    def energy_j(self) -> float | None:
        """Joules used since the meter was made; None without one."""
        for path, before in self._counters.items():
            now = self._tree.number(path)
            if now is None:
                continue
            round_trip = self._tree.number(path.replace("energy_uj", "max_energy_range_uj")) or 0
            self._joules += (now - before + (round_trip + 1 if now < before else 0)) / 1e6
            self._counters[path] = now
        if self._sensor:
            watts, at_s = self._power_w(), self._clock()
            self._joules += (watts + self._watts) / 2 * (at_s - self._at_s)
            self._watts, self._at_s = watts, at_s
        return self._joules if self.name else None

    def _power_w(self) -> float:
        if not self._sensor:
            return 0.0
        millivolts, milliamperes = (self._tree.number(path) or 0 for path in self._sensor)
        return millivolts * milliamperes / 1e6


def _packages(tree: Tree) -> list[str]:
    """Counters of whole processor packages; their parts (core, uncore, dram) would count twice."""
    found = tree.glob("sys/class/powercap/intel-rapl:*/energy_uj")
    return [path for path in found if path.count(":") == 1]


def _sensor(tree: Tree) -> tuple[str, str] | None:
    """Voltage (mV) and current (mA) of the board's input: VDD_IN on Jetsons, else an INA's channel without a label."""
    for name in tree.glob("sys/class/hwmon/hwmon*/name"):
        if not tree.text(name).startswith("ina"):
            continue
        folder = name.rpartition("/")[0]
        for channel in (1, 2, 3):
            pair = (f"{folder}/in{channel}_input", f"{folder}/curr{channel}_input")
            label = tree.text(f"{folder}/in{channel}_label")
            if label in ("", "VDD_IN") and all(tree.number(path) is not None for path in pair):
                return pair
    return None
