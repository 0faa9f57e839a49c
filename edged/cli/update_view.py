"""What people read of updates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import typer

from edged.cli.printable import printable

MIB = 2**20


class Shower:
    """Prints each step once, as it comes; `silent` prints nothing."""

    def __init__(self, *, silent: bool) -> None:
        self._silent, self._last = silent, ""

    def __call__(self, report: Mapping[str, Any]) -> None:
        text = step_line(report)
        if not self._silent and text != self._last:
            typer.echo(text, err=report.get("phase") == "failed")
            self._last = text

    def end(self, found: Mapping[str, Any]) -> None:
        """What serves now; or why releases were passed over, and how it ended if no step said so."""
        if found["outcome"] in ("up_to_date", "waiting"):
            for line in _passed(found["last"]):
                typer.echo(line)
        if found["outcome"] == "taken":
            typer.echo(f"{found['model']} {found.get('active')} serves, and is watched for a while")
        if found.get("reason") and str(found["reason"]) not in self._last:
            typer.echo(f"{found['outcome'].replace('_', ' ')}: {printable(str(found['reason']))}")


def step_line(report: Mapping[str, Any]) -> str:
    """One step of an updater's or a takeover's."""
    phase, version = str(report.get("phase", "")).replace("_", " "), report.get("version")
    name = f"{report.get('model', '')} {version}".strip() if version else ""
    parts = [phase, name, str(report.get("message") or "")]
    if report.get("phase") == "downloading":
        done, total, saved = (report.get(name, 0) / MIB for name in ("bytes_done", "bytes_total", "bytes_saved"))
        parts.append(f"{done:.1f} of {total:.1f} MiB, {saved:.1f} of them were here already")
    return printable(": ".join(part for part in parts if part))


def state_lines(shown: Mapping[str, Any]) -> list[str]:
    """The status for people."""
    last, takeover = shown["last"], shown.get("takeover") or {}
    active, previous = shown.get("active") or "the one that shipped", shown.get("previous") or "none"
    lines = [f"model {shown['model']}: active {active}, previous {previous}"]
    if shown.get("testing"):
        lines.append(f"version {shown['testing']} serves and is being watched")
    if shown.get("staged"):
        lines.append(f"version {shown['staged']} is staged; the daemon tests it and takes it over")
    if takeover.get("phase") not in (None, "idle", "committed"):
        lines.append(step_line({**takeover, "message": takeover.get("detail")}))
    lines.append(f"last run: {last['phase'].replace('_', ' ')}{' (' + last['code'] + ')' if last['code'] else ''}")
    lines += [f"  {line}" for line in (last["message"], *last["notes"]) if line]
    if last["checked_s"]:
        lines.append(f"  the newest signed list was seen {datetime.fromtimestamp(last['checked_s']):%Y-%m-%d %H:%M}")
    lines += _passed(last)
    if last["clock_behind_s"] > 60:
        lines.append(f"  this box's clock is {last['clock_behind_s'] / 3600:.1f} hours behind the signers'")
    if shown["hold"]:
        lines.append(f"held: {shown['hold']}")
    lines += [f"refused here: {version}: {why}" for version, why in shown["refused"].items()]
    return [printable(line) for line in lines]


def _passed(last: Mapping[str, Any]) -> list[str]:
    return [f"  release {one['release']} ({one['version']}): {one['why']}; {one['detail']}" for one in last["passed"]]
