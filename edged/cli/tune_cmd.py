"""`edged tune`: measure a model on every provider that works here, keep the table, show it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edged.cli.columns import columns
from edged.errors import ConfigError, HardwareError

if TYPE_CHECKING:
    from edged.hardware.tune import Goal, Row
    from edged.hardware.tune_table import Table
    from edged.hardware.tuner import Progress

BUSY_SHARE = 0.5
"""A load average above this share of the cores is worth a word: figures of a busy box are too low."""


def tune(
    model: Annotated[str, typer.Argument(help="Name of an installed model, or the path of a model folder.")] = "",
    goal: Annotated[str, typer.Option(help="latency, throughput, memory or power.")] = "latency",
    show: Annotated[bool, typer.Option("--show", help="Print what is remembered; measure nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Prove the providers anew first.")] = False,
    total_s: Annotated[float, typer.Option(min=1, help="Seconds that all of it may take.")] = 180.0,
    trial_s: Annotated[
        float, typer.Option(min=1, help="Seconds that one measurement may take, loading included.")
    ] = 120.0,
    memory_mib: Annotated[
        int, typer.Option(min=0, help="Memory one measurement may take; 0: 80 % of what is free.")
    ] = 0,
) -> None:
    """Find the fastest way to run a model here: provider, threads, cores, spinning, slice size."""
    from edged.config import load
    from edged.hardware.tune import Goal

    if goal not in list(Goal):
        raise ConfigError(f"--goal {goal}: choose {', '.join(Goal)}")
    settings, _ = load()
    if show:
        _show(model, settings.state_path, as_json=as_json)
        return
    if not model:
        raise ConfigError("name a model or the path of a model folder, or --show what is remembered")
    table = _measure(
        model,
        settings.state_path,
        Goal(goal),
        fresh=fresh,
        total_s=total_s,
        trial_s=trial_s,
        memory_bytes=memory_mib << 20,
    )
    _print([table], as_json=as_json)
    if table.choice() is None:
        raise HardwareError(f"{table.model}: no provider could run it; the table says why of each")


def _measure(
    wanted: str, state_dir: Path, goal: Goal, *, fresh: bool, total_s: float, trial_s: float, memory_bytes: int
) -> Table:
    from edged.cli.this_box import findings
    from edged.hardware.tuner import Bounds
    from edged.hardware.tuning import Model, measure_model
    from edged.store.folder import read_json_object
    from edged.store.manifest import read_manifest
    from edged.store.models import find_model

    model = find_model(wanted, state_dir)
    read_manifest(model.folder)  # nothing native opens a folder that was not checked
    config = read_json_object(model.folder, "genai_config.json", "the model")
    found, load = findings(state_dir, fresh=fresh), os.getloadavg()[0]
    if load > BUSY_SHARE * found.report.cpu.usable:
        typer.echo(f"this box is busy (load {load:.1f}): the figures will be too low", err=True)
    return measure_model(
        Model(model.name, model.folder, config),
        found,
        state_dir,
        goal,
        bounds=Bounds(total_s=total_s, trial_s=trial_s),
        memory_bytes=memory_bytes,
        progress=_progress,
    )


def _progress(progress: Progress) -> None:
    typer.echo(f"{progress.spent_s:6.1f} s  {progress.step.setting}  ({progress.step.why})", err=True)


def _show(wanted: str, state_dir: Path, *, as_json: bool) -> None:
    from edged.hardware.fingerprint import fingerprint, package_versions
    from edged.hardware.packages import installed
    from edged.hardware.probe import probe
    from edged.hardware.tune_table import model_key, read_tables
    from edged.store.models import find_model

    tables = read_tables(state_dir)
    if wanted:
        key = model_key(find_model(wanted, state_dir).folder)
        tables = tuple(table for table in tables if table.model_key == key)
    if not tables:
        raise HardwareError(f"nothing is remembered{f' of {wanted}' if wanted else ''}: run `edged tune MODEL`")
    here = fingerprint(probe(), package_versions(installed()))
    _print(tables, as_json=as_json, here=here)


def _print(tables: Sequence[Table], *, as_json: bool, here: str = "") -> None:
    if as_json:
        typer.echo(json.dumps([table.to_dict() for table in tables], indent=1))
        return
    for number, table in enumerate(tables):
        if number:
            typer.echo("")
        for line in page(table, here=here or table.fingerprint):
            typer.echo(line)


def page(table: Table, *, here: str) -> list[str]:
    """One model's table for people; `here` is this box's fingerprint now."""
    chosen = table.choice()
    measured = [row for row in table.rows if row.ok]
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(table.measured_at_s))
    lines = [
        f"{table.model}, measured {when} at load {table.load:.1f} for {table.goal} (fingerprint {table.fingerprint})"
    ]
    if here != table.fingerprint:
        lines.append("this box, its drivers or packages have changed since: the figures no longer count")
    heads = [
        "",
        "setting",
        "prefill tok/s",
        "slice",
        "decode tok/s",
        "peak MiB",
        "load s",
        "CPU s/token",
        "J/token",
        "notes",
    ]
    rows = [_cells(row, chosen=chosen is not None and row == chosen.row) for row in measured]
    lines += columns(heads, rows, right=range(2, 9))
    refused = [row for row in table.rows if not row.ok]
    lines += [f"   {row.setting}: {row.verdict}: {row.reason}" for row in refused]
    lines += [f"   left out: {table.left_out}"] if table.left_out else []
    lines += [f"   failed while serving: {failure.provider}: {failure.reason}" for failure in table.failures]
    lines.append(f"chosen: {chosen.row.setting}, {chosen.why}" if chosen else "chosen: none, nothing worked")
    return lines


def _cells(row: Row, *, chosen: bool) -> list[str]:
    notes = [] if row.whole else ["some operators ran on the CPU"]
    if row.compared and row.agrees < row.compared:
        notes.append(f"{row.agrees} of the first {row.compared} tokens are the CPU provider's")
    if len(row.slices) > 1:
        notes.append("slices " + ", ".join(f"{rate.slice_tokens}: {_rate(rate.prefill_tps)}" for rate in row.slices))
    return [
        "*" if chosen else "",
        str(row.setting),
        _rate(row.slice.prefill_tps),
        str(row.slice.slice_tokens),
        _rate(row.decode_tps),
        f"{row.peak_bytes / 2**20:.0f}",
        f"{row.load_s:.2f}",
        f"{row.cpu_s_per_token:.3g}",
        "-" if row.joules_per_token is None else f"{row.joules_per_token:.3g}",
        "; ".join(notes),
    ]


def _rate(tps: float) -> str:
    """Tokens per second with as many places as mean something."""
    return f"{tps:.0f}" if tps >= 100 else f"{tps:.1f}"
