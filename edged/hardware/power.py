"""What the box is set to spend: power mode, frequency governor, mains or battery."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edged.hardware.tree import Tree


@dataclass(frozen=True)
class Power:
    """`mode` is nvpmodel's on a Jetson, the firmware's platform profile on a PC; None where there is neither."""

    mode: str | None
    modes: tuple[str, ...]
    governors: tuple[str, ...]
    on_battery: bool | None


def read_power(tree: Tree) -> Power:
    """Reads settings only; changes none."""
    mode, modes = _nvpmodel(tree)
    if not modes:
        mode = tree.text("sys/firmware/acpi/platform_profile") or None
        modes = tuple(tree.text("sys/firmware/acpi/platform_profile_choices").split())
    governors = {tree.text(path) for path in tree.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_governor")}
    return Power(mode, modes, tuple(sorted(governors - {""})), _on_battery(tree))


def _nvpmodel(tree: Tree) -> tuple[str | None, tuple[str, ...]]:
    """The active mode's name and all names. /var/lib/nvpmodel/status holds "pmode:0002 fmode:quiet"."""
    config = tree.text("etc/nvpmodel.conf")
    names = {int(number): name for number, name in re.findall(r"<\s*POWER_MODEL ID=(\d+) NAME=(\S+?)\s*>", config)}
    active = re.search(r"pmode:(\d+)", tree.text("var/lib/nvpmodel/status")) or re.search(
        r"<\s*PM_CONFIG DEFAULT=(\d+)", config
    )
    return (names.get(int(active[1]), active[1]) if active else None), tuple(names.values())


def _on_battery(tree: Tree) -> bool | None:
    supplies = [path.rpartition("/")[0] for path in tree.glob("sys/class/power_supply/*/type")]
    kinds = {path: tree.text(f"{path}/type") for path in supplies}
    mains = [tree.number(f"{path}/online") for path, kind in kinds.items() if kind in ("Mains", "USB")]
    if not mains or "Battery" not in kinds.values():
        return None
    return 1 not in mains
