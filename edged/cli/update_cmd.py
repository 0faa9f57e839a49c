"""`edged update`: where updates stand, look for one, fetch one, go back, hold."""

from __future__ import annotations

import json as jsonlib
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edged import children
from edged.cli.options import Json
from edged.errors import OwnerError

if TYPE_CHECKING:
    from edged.config import Settings
    from edged.store.slots import Slots

app = typer.Typer(
    help="Signed model updates: look, fetch, go back, hold.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
File = Annotated[Path | None, typer.Option("--config", help="Settings of updates. Default: /etc/edged/update.toml.")]
BUSY = 75
WANTED = "wanted"


class UpdateFailed(OwnerError):
    """The updater's own words."""


@app.command()
def status(config: File = None, json: Json = False) -> None:
    """Show the active and previous version, the last run and why it ended so, and what is held or refused."""
    shown = _status(config)
    if json:
        typer.echo(jsonlib.dumps(shown))
        return
    last = shown["last"]
    active, previous = shown["active"] or "the one that shipped", shown["previous"] or "none"
    typer.echo(f"model {shown['model']}: active {active}, previous {previous}")
    if shown["testing"]:
        typer.echo(f"version {shown['testing']} serves and is being watched")
    if shown["staged"]:
        typer.echo(f"version {shown['staged']} is staged; the daemon tests it and takes it over")
    typer.echo(f"last run: {last['phase'].replace('_', ' ')}{' (' + last['code'] + ')' if last['code'] else ''}")
    for line in (last["message"], *last["notes"]):
        if line:
            typer.echo(f"  {line}")
    for passed in last["passed"]:
        typer.echo(f"  release {passed['release']} ({passed['version']}): {passed['why']}; {passed['detail']}")
    if last["clock_behind_s"] > 60:
        typer.echo(f"  this box's clock is {last['clock_behind_s'] / 3600:.1f} hours behind the signers'")
    if shown["hold"]:
        typer.echo(f"held: {shown['hold']}")
    for version, why in shown["refused"].items():
        typer.echo(f"refused here: {version}: {why}")


@app.command()
def check(config: File = None, json: Json = False) -> None:
    """Look for a release for this device; download nothing but the signed lists."""
    _run("check", config, json=json)


@app.command()
def apply(
    config: File = None,
    again: Annotated[bool, typer.Option("--again", help="Also try a version that failed here before.")] = False,
    json: Json = False,
) -> None:
    """Fetch, verify and stage the newest release for this device. Window, power and heat are not waited for."""
    if again:
        slots = _slots(config)
        _become_owner(slots.folder.parent.parent)
        for version in list(_refused(slots)):
            slots.forgive(version)
    _run("apply", config, json=json)


@app.command()
def rollback(
    config: File = None,
    reason: Annotated[str, typer.Option("--reason", help="Shown in the status.")] = "by hand",
    json: Json = False,
) -> None:
    """Go back to the previous version, and hold updates until `edged update hold --off`."""
    from edged.update import hold as switch

    slots = _slots(config)
    _become_owner(slots.folder.parent.parent)
    bad = slots.active
    if bad is None:
        raise UpdateFailed(f"{slots.model}: the model that shipped is in use; there is nothing to go back from")
    switch.hold(slots.folder.parent.parent / "update", f"rolled back from {bad}: {reason}")
    good = slots.roll_back(reason, slots.release_of(bad))
    if json:
        typer.echo(jsonlib.dumps({"active": good, "left": bad, "hold": True}))
    else:
        instead = good or "the model that shipped"
        typer.echo(f"active is {instead} instead of {bad}; updates are held. Restart edged to load it.")


@app.command()
def hold(
    off: Annotated[bool, typer.Option("--off", help="Let updates go on.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Shown in the status.")] = "by hand",
    json: Json = False,
) -> None:
    """Hold all updates, or let them go on. What runs stays as it is."""
    from edged.config import load
    from edged.update import hold as switch

    folder = load()[0].state_path / "update"
    _become_owner(folder.parent)
    if off:
        switch.release(folder)
    else:
        switch.hold(folder, reason)
    held = switch.held(folder)
    typer.echo(jsonlib.dumps({"hold": held}) if json else (f"held: {held}" if held else "updates go on"))


@app.command(hidden=True)
def run(config: File = None) -> None:
    """The service's entry: one run, with the owner's conditions; by hand when the daemon was asked for it."""
    from edged.cli.update_settings import read_update_file
    from edged.config import load

    if not read_update_file(config).source:
        typer.echo("no source of updates is set; nothing to do", err=True)
        return
    wanted = load()[0].state_path / "update" / WANTED
    _run("apply", config, json=True, by_hand=wanted.exists())


def _run(action: str, config: Path | None, *, json: bool, by_hand: bool = True) -> None:
    """Starts the updater process, as the owner of the state directory, and shows what it says."""
    from edged.cli.update_settings import read_update_file, run_settings
    from edged.config import load

    settings, _ = load()
    told = jsonlib.dumps(run_settings(read_update_file(config), settings, action=action, by_hand=by_hand))
    last: dict[str, Any] = {}
    shown = ""
    with subprocess.Popen(
        children.command("edged.update"),
        env=children.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **_owner(settings.state_path),
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(told)
        child.stdin.close()
        for line in child.stdout:
            last = jsonlib.loads(line)
            if not json and (text := _line(last)) != shown:
                typer.echo(text, err=last["phase"] == "failed")
                shown = text
    code = child.returncode
    if json and last:
        typer.echo(jsonlib.dumps(last))
    if code == BUSY:
        raise typer.Exit(4)
    if code:
        raise typer.Exit(1)


def _line(report: dict[str, Any]) -> str:
    phase, version = report["phase"].replace("_", " "), report["version"]
    parts = [phase, f"{report['model']} {version}" if version else "", report["message"]]
    if report["phase"] == "downloading":
        done, total, saved = (report[name] / 2**20 for name in ("bytes_done", "bytes_total", "bytes_saved"))
        parts.append(f"{done:.1f} of {total:.1f} MiB, {saved:.1f} of them were here already")
    return ": ".join(part for part in parts if part)


def _owner(state: Path) -> dict[str, Any]:
    """Root does not write into the service's directory as root."""
    try:
        found = state.stat()
    except OSError:
        return {}
    if os.getuid() != 0 or found.st_uid == 0:
        return {}
    return {"user": found.st_uid, "group": found.st_gid, "extra_groups": [], "umask": 0o077}


def _become_owner(state: Path) -> None:
    """For what this process writes there itself: the service must be able to write it again."""
    found = _owner(state)
    if found:
        os.setgroups([])
        os.setegid(found["group"])
        os.seteuid(found["user"])
        os.umask(found["umask"])


def _slots(config: Path | None) -> Slots:
    from edged.cli.update_settings import read_update_file
    from edged.config import load
    from edged.store.slots import Slots

    settings: Settings = load()[0]
    model = read_update_file(config).model or (settings.model if "/" not in settings.model else "nano")
    return Slots(settings.state_path, model)


def _refused(slots: Slots) -> dict[str, str]:
    from edged.store.journal import refused

    return {version: entry.reason for version, entry in refused(slots.journal.read()).items()}


def _status(config: Path | None) -> dict[str, Any]:
    from dataclasses import asdict

    from edged.cli.update_settings import device_id, read_update_file
    from edged.store.journal import uncommitted
    from edged.update import hold as switch
    from edged.update.report import read_report
    from edged.update.staged import next_staged

    slots = _slots(config)
    folder = slots.folder.parent.parent / "update"
    pending = uncommitted(slots.journal.read())
    return {
        "schema": 1,
        "device": read_update_file(config).device_id or device_id(),
        "model": slots.model,
        "active": slots.active,
        "previous": slots.previous,
        "versions": list(slots.versions()),
        "testing": pending.version if pending is not None and pending.version == slots.active else None,
        "staged": next_staged(slots),
        "hold": switch.held(folder),
        "refused": _refused(slots),
        "last": asdict(read_report(folder)),
    }
