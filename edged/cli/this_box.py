"""The box and its providers for the commands that measure, with a word about what is being tried."""

from __future__ import annotations

from pathlib import Path

import typer

from edged.hardware.findings import Findings, find_out
from edged.hardware.providers import examine


def findings(state_dir: Path, *, fresh: bool) -> Findings:
    """Remembered, or tried now: one line on stderr for each provider."""
    return find_out(
        state_dir,
        refresh=fresh,
        examine_providers=lambda box, packages: examine(
            box, packages, progress=lambda title: typer.echo(f"trying {title} …", err=True)
        ),
    )
