"""`edged update`: where updates stand, look for one, fetch one, go back, hold.

Where a daemon keeps the models it is asked; without one, the same is done on the disk.
"""

from __future__ import annotations

import json as jsonlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edged.cli.options import Json

if TYPE_CHECKING:
    from edged.client import Client

app = typer.Typer(
    help="Signed model updates: look, fetch, go back, hold.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
File = Annotated[Path | None, typer.Option("--config", help="Settings of updates. Default: /etc/edged/update.toml.")]
Reason = Annotated[str, typer.Option("--reason", help="Shown in the status.")]


@app.command()
def status(config: File = None, json: Json = False) -> None:
    """Show the active and previous version, the last run and why it ended so, and what is held or refused."""
    from edged.cli import update_local, update_view

    with _daemon(config) as client:
        shown = client.update("status") if client else update_local.state(config)
    typer.echo(jsonlib.dumps(shown) if json else "\n".join(update_view.state_lines(shown)))


@app.command()
def check(config: File = None, json: Json = False) -> None:
    """Look for a release for this device; download nothing but the signed lists."""
    _errand("check", config, json=json)


@app.command()
def apply(
    config: File = None,
    again: Annotated[bool, typer.Option("--again", help="Also try a version that failed here before.")] = False,
    json: Json = False,
) -> None:
    """Fetch and verify the newest release for this device; the daemon then tests it and takes it over, or refuses it.

    Window, power and heat are not waited for.
    """
    _errand("apply", config, again=again, json=json)


@app.command()
def rollback(config: File = None, reason: Reason = "by hand", json: Json = False) -> None:
    """Go back to the previous version, and hold updates until `edged update hold --off`."""
    from edged.cli import update_local

    with _daemon(config) as client:
        done = client.update("rollback", reason=reason) if client else update_local.roll_back(config, reason)
        note = "" if client else " Restart edged to load it."
    instead = done.get("active") or "the model that shipped"
    left = f"active is {instead} instead of {done['left']}; updates are held.{note}"
    typer.echo(jsonlib.dumps(done) if json else left)


@app.command()
def hold(
    off: Annotated[bool, typer.Option("--off", help="Let updates go on.")] = False,
    reason: Reason = "by hand",
    json: Json = False,
) -> None:
    """Hold all updates, or let them go on. What runs stays as it is."""
    from edged.cli import update_local

    with _daemon(None) as client:
        if client:
            held = str(client.update("hold", on=not off, reason=reason).get("hold", ""))
        else:
            held = update_local.set_hold("" if off else reason)
    typer.echo(jsonlib.dumps({"hold": held}) if json else (f"held: {held}" if held else "updates go on"))


@app.command(hidden=True)
def run(config: File = None) -> None:
    """The service's entry: one run, with the owner's conditions; by hand when the daemon was asked for it."""
    from edged.cli import update_local

    raise typer.Exit(update_local.service_run(config))


def _errand(action: Any, config: Path | None, *, json: bool, again: bool = False) -> None:
    from edged.cli import update_local, update_view

    show = update_view.Shower(silent=json)
    with _daemon(config) as client:
        if client:
            more = {"again": True} if again else {}
            found = {"outcome": "", **client.update(action, progress=show, **more)}
            found["outcome"] = found["outcome"] or found["last"]["phase"]
        else:
            found = update_local.errand(action, config, show, again=again)
    if json:
        typer.echo(jsonlib.dumps(found))
    else:
        show.end(found)
    if found["outcome"] in ("failed", "refused", "rolled_back"):
        raise typer.Exit(1)


class _daemon:
    """The client of the daemon that keeps these models; None when there is none, or `config` names another file."""

    def __init__(self, config: Path | None) -> None:
        self._endpoint = None if config else _keeper()
        self._client: Client | None = None

    def __enter__(self) -> Client | None:
        if self._endpoint is not None:
            from edged.client import Client

            self._client = Client(self._endpoint)
        return self._client

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()


def _keeper() -> str | None:
    """Where the daemon listens that is to be asked; None: there is none, and the disk is ours to change.

    Who keeps no models, as an admin of the service does not, asks the daemon that every other command would ask.
    """
    from edged.client import DaemonNotFound
    from edged.client.locate import find_daemon
    from edged.config import load
    from edged.upkeep.claim import claimant

    settings = load()[0]
    try:
        found = claimant(settings.state_path)
        is_ours = bool(settings.state_dir) or os.getuid() == 0
    except OSError:  # the service's own directory, which hides from us
        found, is_ours = None, False
    if found or is_ours:
        return found
    try:
        return find_daemon()
    except DaemonNotFound:
        return None
