"""Is the hardware slowing itself down, or has it been? Firmware flags, cooling devices, counters."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edged.hardware.tree import Tree

PI_FLAGS = {
    0: "under-voltage",
    1: "frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
"""Bits of the Raspberry Pi firmware's get_throttled; the same 16 bits higher mean "since boot" (Raspberry Pi docs)."""

COOLING_BY_SLOWING = re.compile(r".*-alert|(thermal-)?cpufreq-.*|Processor")
"""Cooling devices that slow a processor down; the others are fans and, on some Jetsons, ordinary GPU clocks."""


@dataclass(frozen=True)
class Throttling:
    """`now` and `since_boot` name what holds; `events` counts thermal throttling of the package since boot (x86)."""

    now: tuple[str, ...] = ()
    since_boot: tuple[str, ...] = ()
    events: int = 0


def read_throttling(tree: Tree) -> Throttling:
    """One look. Costs a process on a Raspberry Pi whose kernel has no get_throttled file: not for every token."""
    flags = _raspberry_pi(tree)
    now = [name for bit, name in PI_FLAGS.items() if flags >> bit & 1]
    since_boot = [name for bit, name in PI_FLAGS.items() if flags >> (bit + 16) & 1]
    for path in tree.glob("sys/class/hwmon/hwmon*/in0_lcrit_alarm"):
        if tree.number(path) == 1 and tree.text(path.replace("in0_lcrit_alarm", "name")) == "rpi_volt":
            now.append("under-voltage")
    for path in tree.glob("sys/class/thermal/cooling_device*"):
        kind = tree.text(f"{path}/type")
        if COOLING_BY_SLOWING.fullmatch(kind) and (tree.number(f"{path}/cur_state") or 0) > 0:
            now.append(f"slowed by {kind}")
    counts = (
        tree.number(path) for path in tree.glob("sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count")
    )
    return Throttling(tuple(dict.fromkeys(now)), tuple(since_boot), max((count or 0 for count in counts), default=0))


def _raspberry_pi(tree: Tree) -> int:
    """The flag word, from the firmware driver's file (hexadecimal) or from vcgencmd ("throttled=0x50000")."""
    for path in tree.glob("sys/devices/platform/soc*/soc*:firmware/get_throttled"):
        return _hex(tree.text(path))
    if tree.exists("dev/vcio"):
        return _hex(tree.output("vcgencmd", "get_throttled").partition("=")[2])
    return 0


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0
