"""The whole picture of a box: the probe, done every time, and what takes seconds, done once per fingerprint.

The seconds go into trying providers (remembered by provider_cache) and into measuring memory (`bandwidth.json` in the
state directory, owned here). A file that cannot be read counts as none: finding out again mends it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edged.hardware.board import BoardKind
from edged.hardware.fingerprint import fingerprint, package_versions
from edged.hardware.packages import Package, installed
from edged.hardware.probe import HardwareReport, probe
from edged.hardware.provider_cache import recall_reports, remember_reports
from edged.hardware.provider_rules import Box
from edged.hardware.providers import ProviderReport, examine
from edged.hardware.state_file import locked, write_json
from edged.hardware.tree import Tree

FILE = "bandwidth.json"
log = logging.getLogger(__name__)

Examine = Callable[[Box, Sequence[Package]], tuple[ProviderReport, ...]]
Measure = Callable[[int], float | None]


@dataclass(frozen=True)
class Findings:
    """`report` with its bandwidth where that is known; `remembered` says that nothing was run this time."""

    report: HardwareReport
    fingerprint: str
    providers: tuple[ProviderReport, ...]
    remembered: bool


def find_out(
    state_dir: Path,
    *,
    root: Path | Tree = Path("/"),
    refresh: bool = False,
    measure: Measure | None = None,
    examine_providers: Examine = examine,
) -> Findings:
    """Probes the box, and recalls or finds out the rest.

    `measure` gets the available memory in bytes and returns the bandwidth; None leaves it unmeasured (it needs numpy,
    which a lean process does not load). What cannot be kept on disk is logged and found out again next time.
    """
    report = probe(root, disk_path=state_dir)
    packages = installed()
    key = fingerprint(report, package_versions(packages))
    providers = None if refresh else recall_reports(state_dir, key)
    bandwidth = None if refresh else _recall_bandwidth(state_dir, key)
    remembered = providers is not None and (bandwidth is not None or measure is None)
    if providers is None:
        providers = examine_providers(box_of(report), packages)
        _keep(lambda: remember_reports(state_dir, key, providers))
    if bandwidth is None and measure:
        bandwidth = measure(report.memory.available_bytes)
        _keep(lambda: _remember_bandwidth(state_dir, key, bandwidth))
    report = replace(report, memory=replace(report.memory, bandwidth=bandwidth))
    return Findings(report, key, providers, remembered)


def box_of(report: HardwareReport) -> Box:
    """What the rules for providers want to know of a report."""
    return Box(
        machine=report.cpu.arch,
        cpu_model=report.cpu.model,
        accelerators=report.accelerators,
        vulkan=report.vulkan,
        jetson=report.board.kind is BoardKind.JETSON,
    )


def _recall_bandwidth(state_dir: Path, key: str) -> float | None:
    try:
        raw = json.loads((state_dir / FILE).read_text("utf-8"))
        return float(raw["bytes_per_s"]) if raw["fingerprint"] == key and raw["bytes_per_s"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember_bandwidth(state_dir: Path, key: str, bandwidth: float | None) -> None:
    with locked(state_dir / FILE):
        write_json(state_dir / FILE, {"fingerprint": key, "bytes_per_s": bandwidth})


def _keep(write: Callable[[], None]) -> None:
    try:
        write()
    except OSError as error:
        log.warning("what was found out about this box cannot be kept: %s", error)
