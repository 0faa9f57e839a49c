"""Updates without a daemon: the updater is started here; a rollback or a hold is done on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from edged import children
from edged.cli.update_settings import run_settings
from edged.client import Client, ClientError
from edged.config import load
from edged.errors import EdgedError, OwnerError, RequestError
from edged.store.journal import refused
from edged.store.slots import Slots
from edged.update import hold, wish
from edged.update.due import not_due
from edged.update.owner_file import device_id, model_of, read_update_file
from edged.update.report import Reporter, read_report
from edged.update.state import update_state
from edged.update.wish import Action, Wish

BUSY = 75
ASK_S = 3.0
NO_SOURCE = "no source of updates is set"


class UpdateFailed(OwnerError):
    """The updater's own words."""


def state(config: Path | None) -> dict[str, Any]:
    """What `update status` shows. Raises ConfigError, OSError."""
    file, settings = read_update_file(config), load()[0]
    return update_state(settings.state_path, model_of(file, settings.model), file.device_id or device_id())


def errand(action: Action, config: Path | None, show: Callable[[Mapping[str, Any]], None], *, again: bool) -> Any:
    """One run of the updater; the state after it, and `outcome`. Raises UpdateFailed when another one is at work."""
    if again:
        slots = _slots(config)
        _become_owner(slots.folder.parent.parent)
        for version in refused(slots.journal.read()):
            slots.forgive(version)
    code = _run(Wish(action), config, show, by_hand=True)
    if code == BUSY:
        raise UpdateFailed("another updater is at work; see `edged update status`")
    found = state(config)
    return {**found, "outcome": "failed" if code else found["last"]["phase"]}


def roll_back(config: Path | None, reason: str) -> dict[str, Any]:
    """Raises UpdateFailed when there is nothing to go back from, OSError and StoreError."""
    slots = _slots(config)
    folder = slots.folder.parent.parent / "update"
    _become_owner(folder.parent)
    bad = slots.active
    if bad is None:
        raise UpdateFailed(f"{slots.model}: the model that shipped is in use; there is nothing to go back from")
    hold.hold(folder, f"rolled back from {bad}: {reason}")
    good = slots.roll_back(reason, slots.release_of(bad))
    return {"active": good, "left": bad, "hold": hold.held(folder)}


def set_hold(reason: str) -> str:
    """Sets the switch, or takes it back when there is no reason; what it says then. Raises OSError."""
    folder = load()[0].state_path / "update"
    _become_owner(folder.parent)
    if reason:
        hold.hold(folder, reason)
    else:
        hold.release(folder)
    return hold.held(folder)


def service_run(config: Path | None) -> int:
    """One run for the timer, or for a wish that the daemon left. Exit status: 75 when another one is at work."""
    settings = load()[0]
    folder = settings.state_path / "update"
    try:
        wanted = wish.take(folder)
    except OSError as error:
        raise UpdateFailed(f"{folder / wish.FILE}: the request cannot be taken away: {error.strerror}") from error
    try:
        file = read_update_file(config)
        if not file.source:
            typer.echo(f"{NO_SOURCE}; nothing to do", err=True)
            _tell_failed(folder, wanted, f"{NO_SOURCE}: name one in /etc/edged/update.toml")
            return 0
        if wanted is None:
            last = read_report(folder)
            model = model_of(file, settings.model)
            if why := not_due(file.window, model, last, time.time(), held=bool(hold.held(folder))):
                typer.echo(f"{why}; nothing to do", err=True)
                return 0
        is_idle = None if wanted else _is_idle()
        return _run(wanted or Wish(), config, _log, by_hand=wanted is not None, is_idle=is_idle)
    except EdgedError as error:
        _tell_failed(folder, wanted, str(error))
        raise


def _tell_failed(folder: Path, wanted: Wish | None, why: str) -> None:
    """Whoever left the wish hears why nothing came of it."""
    if wanted is not None:
        told = Reporter(folder, wanted.model, time.time, asked=wanted.id)
        told.set(phase="failed", code="not_set_up", message=why)


def _run(
    wanted: Wish,
    config: Path | None,
    show: Callable[[Mapping[str, Any]], None],
    *,
    by_hand: bool,
    is_idle: bool | None = None,
) -> int:
    """Starts the updater process, as the owner of the state directory, and shows what it says; its exit status."""
    settings, _ = load()
    told = run_settings(read_update_file(config), settings, wish=wanted, by_hand=by_hand, is_idle=is_idle)
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
        child.stdin.write(json.dumps(told))
        child.stdin.close()
        for line in child.stdout:
            show(json.loads(line))
    return child.returncode


def _log(report: Mapping[str, Any]) -> None:
    """For the journal: how it ended, not each megabyte."""
    if report["phase"] not in ("checking", "downloading"):
        typer.echo(json.dumps(report))


def _is_idle() -> bool | None:
    """Whether the daemon answers nobody now; None when it does not say."""
    try:
        with Client(timeout_s=ASK_S) as client:
            models = client.status().raw.get("models", [])
        return not any(model.get("engine", {}).get(name) for model in models for name in ("running", "waiting"))
    except (ClientError, RequestError, AttributeError):
        return None


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
    settings = load()[0]
    return Slots(settings.state_path, model_of(read_update_file(config), settings.model))
