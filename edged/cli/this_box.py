"""What the measuring commands need to know of this box besides the probe's findings."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from edged.hardware.cpu import Cpu
from edged.hardware.findings import Findings, find_out
from edged.hardware.memory import read_memory
from edged.hardware.providers import examine
from edged.hardware.tuner import Cores

MEMORY_SHARE = 0.8
"""Of the memory that is free now, a trial may take this much."""


def findings(state_dir: Path, *, fresh: bool) -> Findings:
    """The box and its providers, remembered or tried now (said on stderr, one line each)."""
    return find_out(
        state_dir,
        refresh=fresh,
        examine_providers=lambda box, packages: examine(
            box, packages, progress=lambda title: typer.echo(f"trying {title} …", err=True)
        ),
    )


def usable_cores(cpu: Cpu) -> Cores:
    """The cores this process may use; the kinds of cores are cut down to them."""
    allowed = os.sched_getaffinity(0)
    clusters = (tuple(core for core in cluster.cpus if core in allowed) for cluster in cpu.clusters)
    return Cores(min(cpu.cores, len(allowed)), tuple(cluster for cluster in clusters if cluster))


def spare_bytes() -> int:
    """The ceiling of a trial's memory: a share of what is free now."""
    return int(read_memory().headroom_bytes * MEMORY_SHARE)
