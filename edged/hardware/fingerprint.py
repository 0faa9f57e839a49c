"""A short name for "this hardware with these drivers and packages": what measurements are remembered by."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata

from edged.hardware.packages import Package
from edged.hardware.probe import HardwareReport

MEMORY_STEP_BYTES = 256 << 20
"""Kernels reserve a little more or less of the same memory: totals are compared in such steps."""


def fingerprint(report: HardwareReport, package_versions: Mapping[str, str]) -> str:
    """16 hexadecimal digits that change with board, CPU, memory size, devices, drivers or packages, and nothing else.

    Free memory, temperatures, disk, power mode and measured bandwidth do not count. The set of online CPUs does: a
    power mode that switches cores off changes what was measured.
    """
    facts = {
        "board": [report.board.kind, report.board.model, report.board.l4t],
        "cpu": [report.cpu.model, report.cpu.arch, report.cpu.cores, report.cpu.threads, dict(report.cpu.features)],
        "clusters": [[cluster.name, cluster.cpus, cluster.max_mhz] for cluster in report.cpu.clusters],
        "memory": round(report.memory.total_bytes / MEMORY_STEP_BYTES),
        "devices": sorted(
            [found.kind, found.vendor, found.name, found.driver, found.driver_version or "", found.memory_bytes or 0]
            for found in report.accelerators
        ),
        "vulkan": sorted(report.vulkan),
        "packages": dict(package_versions),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def package_versions(packages: Sequence[Package]) -> dict[str, str]:
    """What of the software decides how a model runs here: onnxruntime's family, Python, and edged itself."""
    try:
        edged = metadata.version("edged")
    except metadata.PackageNotFoundError:
        edged = "source"
    return {
        "python": platform.python_version(),
        "edged": edged,
        **{package.name: package.version for package in packages},
    }
