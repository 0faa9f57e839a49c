"""`edged probe`: what this box is, and what can run models on it."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from edged.errors import HardwareError


def probe(
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Try and measure again, whatever is remembered.")] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record", metavar="DIR", help="Only copy what the probe reads to DIR, without serials and names."
        ),
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file.")] = None,
) -> None:
    """Show what this box is, and which execution providers work on it.

    The first time, each installed provider is tried in a child process and memory is read for a second.
    """
    if record is not None:
        _record(record)
        return
    from rich.console import Console

    from edged.cli.probe_page import print_page
    from edged.config import load
    from edged.hardware.bandwidth import measure_bandwidth
    from edged.hardware.findings import find_out

    settings, _ = load(file=config)
    with Console(stderr=True).status("Looking at the box, trying providers, measuring memory …"):
        found = find_out(
            settings.state_path,
            refresh=refresh,
            measure=lambda available_bytes: measure_bandwidth(available_bytes=available_bytes),
        )
    if not json:
        print_page(Console(), found)
        return
    providers = [{**provider.to_dict(), "usable": provider.usable} for provider in found.providers]
    page = {"schema": 1, "fingerprint": found.fingerprint, **found.report.to_dict(), "providers": providers}
    typer.echo(jsonlib.dumps(page, indent=2))


def _record(folder: Path) -> None:
    from edged.hardware.record import record

    try:
        if folder.exists() and any(folder.iterdir()):
            raise HardwareError(f"{folder} is not empty: name a folder that is, or one that does not exist yet")
        written = record(folder)
    except OSError as error:
        raise HardwareError(f"{error.filename or folder}: {error.strerror}") from error
    typer.echo(f"{len(written)} files written below {folder}. Look through them before you give them away.")
