"""What the hardware commands need to know of this box, gathered once."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from edged.hardware.board import BoardKind
from edged.hardware.fingerprint import fingerprint
from edged.hardware.memory import read_memory
from edged.hardware.packages import Package, installed
from edged.hardware.probe import HardwareReport, probe
from edged.hardware.provider_cache import recall_reports, remember_reports
from edged.hardware.provider_rules import Box
from edged.hardware.providers import ProviderReport, examine
from edged.hardware.tuner import Cores

MEMORY_SHARE = 0.8
"""Of the memory that is free now, a trial may take this much."""


@dataclass(frozen=True, slots=True)
class ThisBox:
    """The probe's report, the packages, and what measurements are remembered by."""

    report: HardwareReport
    packages: tuple[Package, ...]
    fingerprint: str

    @property
    def signs(self) -> Box:
        """What speaks for a provider."""
        return Box(
            machine=self.report.cpu.arch,
            cpu_model=self.report.cpu.model,
            accelerators=self.report.accelerators,
            vulkan=self.report.vulkan,
            jetson=self.report.board.kind is BoardKind.JETSON,
        )

    @property
    def cores(self) -> Cores:
        """The cores this process may use; clusters are cut down to them."""
        allowed = os.sched_getaffinity(0)
        clusters = (tuple(cpu for cpu in cluster.cpus if cpu in allowed) for cluster in self.report.cpu.clusters)
        return Cores(min(self.report.cpu.cores, len(allowed)), tuple(cluster for cluster in clusters if cluster))

    @property
    def spare_bytes(self) -> int:
        """The ceiling of a trial's memory: a share of what is free now."""
        return int(read_memory().headroom_bytes * MEMORY_SHARE)


def look() -> ThisBox:
    """Probe this box. Does not measure anything: a fraction of a second."""
    report, packages = probe(), installed()
    versions = {package.name: package.version for package in packages}
    versions |= {"python": platform.python_version(), "edged": _version("edged")}
    return ThisBox(report, packages, fingerprint(report, versions))


def provider_reports(
    box: ThisBox, state_dir: Path, *, fresh: bool, progress: Callable[[str], None]
) -> tuple[ProviderReport, ...]:
    """The remembered reports, or new ones (`fresh`, or none remembered), which are then kept. Raises OSError."""
    known = None if fresh else recall_reports(state_dir, box.fingerprint)
    if known is not None:
        return known
    reports = examine(box.signs, box.packages, progress=progress)
    remember_reports(state_dir, box.fingerprint, reports)
    return reports


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "source"
