"""`edged bench`: the daemon against the bare genai loop, in turn, in one run."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer


def bench(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Installed model name or path of a model folder.")
    ] = "nano",
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each side per figure; medians are shown.")] = 5,
    max_tokens: Annotated[int, typer.Option(min=2, max=4096, help="Tokens per answer.")] = 128,
    threads: Annotated[
        int, typer.Option(min=0, max=1024, help="Intra-op threads of both sides; 0: the runtime's.")
    ] = 0,
    only: Annotated[
        list[str] | None, typer.Option(help="Figures to measure: speed, ping, gap, session, cancel, memory, start.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure this machine: edged against the bare onnxruntime-genai loop, alternating, on the same prompts.

    Both sides are started here, on sockets of their own; a running daemon is not touched. Close other programs first.
    Exit status 0 when it ran, whatever the figures say.
    """
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from edged.bench.run import FIGURES, run
    from edged.config import load

    wanted = frozenset(name.strip() for part in only for name in part.split(",")) if only else FIGURES
    if wanted - FIGURES:
        unknown = ", ".join(sorted(wanted - FIGURES))
        raise typer.BadParameter(f"{unknown}: choose from {', '.join(sorted(FIGURES))}", param_hint="--only")
    settings, _ = load()
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=console, transient=True
    ) as progress:
        task = progress.add_task("starting")
        report = run(
            model,
            settings.state_path,
            repeats=repeats,
            max_tokens=max_tokens,
            threads=threads,
            only=wanted,
            tell=lambda phase: progress.update(task, description=phase),
        )
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "load_1m": round(os.getloadavg()[0], 2)}
    if as_json:
        typer.echo(json.dumps({"machine": machine, **asdict(report)}, indent=2))
        return
    _show(report, machine)


def _show(report: Any, machine: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"edged bench · {Path(report.model).name} · {machine['cpus']} CPUs {machine['machine']}")
    for name, justify in (("figure", "left"), ("value", "right"), ("bar", "right"), ("", "left"), ("detail", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for figure in report.figures:
        mark = "" if figure.met is None else "[green]met[/]" if figure.met else "[red]missed[/]"
        detail = ", ".join(f"{name} {value:.4g}" for name, value in (figure.detail or {}).items())
        table.add_row(figure.name, f"{figure.value:.3g} {figure.unit}".rstrip(), figure.bar, mark, detail)
    Console().print(table)
