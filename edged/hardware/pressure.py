"""Memory pressure: what the kernel's stall information (PSI) says, and what that means. Decides nothing else.

Source of the file format: Linux Documentation/accounting/psi.rst. `some`: share of time in which at least one task
waited for memory; `full`: in which all did. Where PSI is absent or not permitted the headroom alone decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from edged.hardware.cgroup import own_groups
from edged.hardware.tree import Tree


@dataclass(frozen=True)
class Stall:
    """PSI averages over ten seconds, in percent (0-100)."""

    some_avg10: float
    full_avg10: float


@dataclass(frozen=True)
class PressureReading:
    """None where the kernel has no PSI, has it switched off, or does not let us read it."""

    machine: Stall | None
    cgroup: Stall | None

    @property
    def worst(self) -> Stall | None:
        """The larger of both, number by number: the machine stalls us whether or not our group is to blame."""
        known = [stall for stall in (self.machine, self.cgroup) if stall]
        if not known:
            return None
        return Stall(max(stall.some_avg10 for stall in known), max(stall.full_avg10 for stall in known))


class PressureLevel(IntEnum):
    """What to do: nothing; admit no more and give back idle KV; shed work."""

    NONE = 0
    LOW = 1
    CRITICAL = 2


@dataclass(frozen=True)
class PressureLimits:
    """Where a level begins (percent of time, bytes of headroom), and how far below it one is left again."""

    low_some_avg10: float = 10.0
    critical_full_avg10: float = 10.0
    low_headroom_bytes: int = 256 << 20
    critical_headroom_bytes: int = 128 << 20
    release: float = 0.5
    """Above 0, at most 1: a level is left when stalls fall below this part of its limit, and headroom rises to 1/this
    of its own."""

    @classmethod
    def within(cls, reserve_bytes: int) -> PressureLimits:
        """Limits that a full KV budget does not reach by itself: it leaves the reserve as headroom."""
        usual = cls()
        return cls(
            low_headroom_bytes=min(usual.low_headroom_bytes, reserve_bytes // 2),
            critical_headroom_bytes=min(usual.critical_headroom_bytes, reserve_bytes // 4),
        )


def read_pressure(root: Path | Tree = Path("/")) -> PressureReading:
    """One look at PSI, of the machine and of our own cgroup."""
    tree = Tree.of(root)
    groups = [stall for folder in own_groups(tree) if (stall := _read_stall(tree, f"{folder}/memory.pressure"))]
    return PressureReading(_read_stall(tree, "proc/pressure/memory"), groups[0] if groups else None)


def pressure_level(
    stall: Stall | None,
    headroom_bytes: int,
    limits: PressureLimits = PressureLimits(),
    was: PressureLevel = PressureLevel.NONE,
) -> PressureLevel:
    """The level now, given the one before (it rises at a limit, and falls only well below it)."""
    for level in (PressureLevel.CRITICAL, PressureLevel.LOW):
        slack = limits.release if was >= level else 1.0
        if level is PressureLevel.CRITICAL:
            stalled, stall_limit = stall.full_avg10 if stall else 0.0, limits.critical_full_avg10
            headroom_limit = limits.critical_headroom_bytes
        else:
            stalled, stall_limit = stall.some_avg10 if stall else 0.0, limits.low_some_avg10
            headroom_limit = limits.low_headroom_bytes
        if stalled >= stall_limit * slack or headroom_bytes < headroom_limit / slack:
            return level
    return PressureLevel.NONE


def _read_stall(tree: Tree, path: str) -> Stall | None:
    found = re.findall(r"^(some|full) avg10=(\d+\.\d+) ", tree.text(path), re.MULTILINE)
    averages = {kind: float(percent) for kind, percent in found}
    return Stall(averages["some"], averages.get("full", 0.0)) if "some" in averages else None
