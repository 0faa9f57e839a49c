"""Checks of what the daemon says of itself, and what systemd says of the daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edged.doctor.check import Check, Level

STALE_S = 8 * 86_400.0  # lists last seven days, and boxes look daily


def check_answer(status: Mapping[str, Any] | None, trouble: str) -> Check:
    """Whether a daemon answers. `trouble`: why there is no `status`."""
    name = "daemon"
    if status is None:
        return Check(name, Level.FAIL, trouble, "systemctl status edged; journalctl -u edged -n 50")
    if status.get("draining"):
        return Check(name, Level.WARN, "it is stopping and takes no new work", "wait, or systemctl restart edged")
    uptime_s = float(status.get("uptime_s", 0.0))
    return Check(name, Level.OK, f"edged {status.get('version', '?')} answers, up {_span(uptime_s)}")


def check_models(status: Mapping[str, Any]) -> Check:
    """Every model it has, loaded or why not, and on which provider."""
    name = "provider"
    models = [entry for entry in status.get("models", []) if isinstance(entry, Mapping)]
    if not models:
        return Check(name, Level.WARN, "no model is loaded", "edged models")
    failed = [entry for entry in models if entry.get("state") == "failed"]
    if failed:
        found = f"{failed[0].get('name')}: {failed[0].get('reason') or 'cannot be loaded'}"
        return Check(name, Level.FAIL, found, "journalctl -u edged has the whole reason; edged providers, edged models")
    waiting = [entry for entry in models if entry.get("state") not in ("ready", "unloaded")]
    if waiting:
        found = f"{waiting[0].get('name')} is {waiting[0].get('state')}: {waiting[0].get('reason') or 'wait'}"
        return Check(name, Level.WARN, found, "look again in a minute")
    return Check(name, Level.OK, ", ".join(f"{entry.get('name')} on {entry.get('provider', '?')}" for entry in models))


def check_crashes(status: Mapping[str, Any] | None, unit: Mapping[str, str]) -> Check:
    """Engines that ended since the daemon started, and what systemd counted. `unit`: `systemctl show`'s properties."""
    name = "crashes"
    if status is None and not unit:
        return Check(name, Level.SKIP, "neither a daemon nor systemd to ask")
    told = []
    for entry in status.get("models", []) if status else []:
        if entry.get("restarts"):
            told.append(f"engine of {entry.get('name')} ended {entry['restarts']} times, last: {entry.get('last_end')}")
    restarts = unit.get("NRestarts", "0")
    if restarts not in ("", "0"):
        told.append(f"systemd restarted the daemon {restarts} times")
    if unit.get("Result", "success") not in ("", "success"):
        told.append(f"its last end: {unit['Result']}")
    if told:
        todo = "journalctl -u edged -p warning; edged doctor --bundle for support"
        return Check(name, Level.WARN, "; ".join(told), todo)
    return Check(name, Level.OK, "none since the start")


def check_quarantine(status: Mapping[str, Any]) -> Check:
    """Inputs that ended an engine twice and are refused from then on."""
    name = "quarantine"
    count = int(status.get("front", {}).get("quarantined_inputs", 0) or 0)
    if count:
        return Check(name, Level.WARN, f"{count} inputs ended the engine twice", "edged doctor --bundle and report it")
    return Check(name, Level.OK, "no input is refused")


def check_updates(report: Mapping[str, Any] | None, now_s: float) -> Check:
    """How the last run of the updater went, and when. `report`: its status file, None without one."""
    name = "updates"
    if report is None:
        return Check(name, Level.OK, "never run")
    phase, why = str(report.get("phase", "?")), str(report.get("message") or report.get("reason") or "")
    if phase == "failed":
        return Check(
            name, Level.WARN, f"the last one failed: {why}", "the old model keeps serving; edged update status"
        )
    looked_s = report.get("checked_s") or 0
    if looked_s and now_s - looked_s > STALE_S:
        said = f"no signed list was seen for {_span(now_s - looked_s)}"
        return Check(name, Level.WARN, said, "is edged-update.timer active? journalctl -u edged-update")
    return Check(name, Level.OK, f"{phase}{': ' + why if why else ''}")


def _span(seconds: float) -> str:
    days, rest = divmod(int(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
