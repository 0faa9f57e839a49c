"""Measuring one model on this box from start to finish: what `edged tune` does, and the daemon at a first load.

Gathers what the parts need to know (cores, free memory, energy meter), has them measured, and keeps the table.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.hardware.candidates import CPU_GRAPH
from edged.hardware.cpu import Cpu
from edged.hardware.energy import EnergyMeter
from edged.hardware.findings import Findings
from edged.hardware.memory import read_memory
from edged.hardware.tune import Goal
from edged.hardware.tune_table import Table, model_key, remember
from edged.hardware.tuner import Bounds, Cores, Progress, tune

MEMORY_SHARE = 0.8
"""Of the memory that is free now, a trial may take this much unless told otherwise."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Model:
    """What is measured: its name towards people, its folder, and its genai_config.json as read and checked."""

    name: str
    folder: Path
    config: Mapping[str, Any]


def measure_model(
    model: Model,
    found: Findings,
    state_dir: Path,
    goal: Goal,
    *,
    bounds: Bounds = Bounds(),
    memory_bytes: int = 0,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Table:
    """The table, which is then remembered (what the disk refuses is logged). Blocks for at most `bounds.total_s`.

    The folder must have been checked before: a child opens it with native code. `memory_bytes` 0 is MEMORY_SHARE of
    what is free.
    """
    load, started_s, meter = os.getloadavg()[0], time.time(), EnergyMeter()
    tuned = tune(
        {variant(model.config): model.folder},
        found.providers,
        goal,
        usable_cores(found.report.cpu),
        memory_bytes=memory_bytes or int(read_memory().headroom_bytes * MEMORY_SHARE),
        bounds=bounds,
        energy_j=meter.energy_j if meter.name else None,
        progress=progress,
    )
    table = Table(
        model=model.name,
        model_key=model_key(model.folder),
        fingerprint=found.fingerprint,
        goal=goal,
        measured_at_s=started_s,
        rows=tuned.rows,
        left_out=tuned.left_out,
        load=load,
    )
    try:
        remember(state_dir, table)
    except OSError as error:
        log.warning("the measurements of %s cannot be kept: %s", model.name, error)
    return table


def usable_cores(cpu: Cpu) -> Cores:
    """The cores this process may use; the kinds of cores are cut down to them."""
    allowed = os.sched_getaffinity(0)
    clusters = (tuple(core for core in cluster.cpus if core in allowed) for cluster in cpu.clusters)
    return Cores(min(cpu.cores, len(allowed)), tuple(cluster for cluster in clusters if cluster))


def variant(config: Mapping[str, Any]) -> str:
    """Which provider a model was made for, as its genai_config.json names it; "cpu" where it names none."""
    found: Any = config
    for key in ("model", "decoder", "session_options", "provider_options"):
        found = found.get(key) if isinstance(found, Mapping) else None
    names = [name for entry in found if isinstance(entry, Mapping) for name in entry] if isinstance(found, list) else []
    return names[0].lower() if names else CPU_GRAPH
