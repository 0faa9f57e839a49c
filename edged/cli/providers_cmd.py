"""`edged providers`: what each execution provider is good for on this box, shown by running it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edged.cli.columns import columns

if TYPE_CHECKING:
    from edged.hardware.providers import ProviderReport


def providers(
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Try every provider again instead of showing what is known.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also those that nothing on this box could run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False,
) -> None:
    """Which execution providers work here, why each other does not, and what would mend it."""
    from edged.cli.this_box import findings
    from edged.config import load
    from edged.hardware.packages import installed
    from edged.hardware.providers import warnings

    settings, _ = load()
    found, warned = findings(settings.state_path, fresh=fresh), warnings(installed())
    if as_json:
        raw = {"fingerprint": found.fingerprint, "providers": [report.to_dict() for report in found.providers]}
        typer.echo(json.dumps(raw | {"warnings": warned}, indent=1))
        return
    for line in page(found.providers, everything=everything):
        typer.echo(line)
    for warning in warned:
        typer.echo(f"\nwarning: {warning}")


def page(reports: Sequence[ProviderReport], *, everything: bool) -> list[str]:
    """The table, and below it what would mend what is wanted and does not work."""
    shown = [report for report in reports if everything or report.wanted_because or report.found]
    rows = [
        [report.candidate.key, "yes" if report.usable else "no", report.found or "-", report.summary]
        for report in shown
    ]
    lines = columns(["provider", "usable", "from", "because"], rows)
    mend = [report for report in shown if report.refusal and report.refusal.mend]
    if mend:
        lines += ["", "to mend:"]
        lines += [f"  {report.candidate.key}: {report.refusal.mend}" for report in mend if report.refusal]
    hidden = len(reports) - len(shown)
    if hidden:
        lines += ["", f"{hidden} more are not installed and have nothing here to run on (--all shows them)"]
    return lines
