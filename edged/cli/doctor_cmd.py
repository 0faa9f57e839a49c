"""`edged doctor`: is this box fit to serve, and if not, what to do."""

from __future__ import annotations

import datetime
import json as jsonlib
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edged.cli.options import Endpoint, Json
from edged.errors import ConfigError, EdgedError

if TYPE_CHECKING:
    from edged.config import Settings
    from edged.doctor.check import Check

TOOL_S = 20.0


def doctor(
    endpoint: Endpoint = None,
    config: Annotated[Path | None, typer.Option("--config", help="Settings file.")] = None,
    json: Json = False,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="FILE", help="Also pack what support needs into FILE (tar.gz)."),
    ] = None,
) -> None:
    """Check configuration, permissions, socket, model, provider, memory, disk, clock, heat, crashes and updates.

    One line each, with what to do. Exit status 1 when a check failed. --bundle packs the same with the service's log
    and the probe; no prompt is in there (none is ever logged) and what looks like a key is taken out.
    """
    from edged.doctor.check import exit_status

    settings, origin, checks = _settings(config)
    status, trouble, where = _ask(endpoint or settings.endpoint or None)
    unit = _unit()
    checks += _checks(settings, status, trouble, where, unit)
    if bundle is not None:
        from edged.doctor.bundle import write_bundle

        size = write_bundle(bundle, _texts(settings, origin, checks, status, unit))
        typer.echo(f"{bundle}: {size} bytes, for you alone (0600); look through it before you give it away", err=True)
    if json:
        shown = [{"name": c.name, "level": c.level.value, "found": c.found, "todo": c.todo} for c in checks]
        typer.echo(jsonlib.dumps({"schema": 1, "ok": exit_status(checks) == 0, "checks": shown}))
    else:
        for check in checks:
            typer.echo(check.line())
    raise typer.Exit(exit_status(checks))


def _settings(file: Path | None) -> tuple[Settings, dict[str, str], list[Check]]:
    """The settings, or the defaults when there is a fault in them, which is then a failed check."""
    from edged.config import SYSTEM_FILE, Settings, load
    from edged.doctor.check import Check, Level

    try:
        settings, origin = load(file=file)
    except ConfigError as error:
        check = Check("config", Level.FAIL, str(error), "mend that line; `edged config show` lists what there is")
        return Settings.model_validate({}), {}, [check]
    changed = sorted(name for name, source in origin.items() if source != "default")
    found = f"{len(changed)} settings differ from the defaults" + (f": {', '.join(changed[:5])}" if changed else "")
    return settings, origin, [Check("config", Level.OK, f"{file or SYSTEM_FILE}: {found}")]


def _checks(
    settings: Settings, status: Mapping[str, Any] | None, trouble: str, where: str, unit: Mapping[str, str]
) -> list[Check]:
    from edged.doctor import daemon, files, machine
    from edged.hardware.memory import read_memory
    from edged.hardware.pressure import pressure_level, read_pressure
    from edged.hardware.thermal import read_thermal
    from edged.protocol.endpoint import socket_path

    state = _state(settings)
    service = _service_user()
    memory = read_memory()
    total, free = _space(state)
    return [
        files.check_state(state, service[0] if service and state == Path("/var/lib/edged") else None),
        files.check_socket(socket_path(where), service[1] if service else None),
        daemon.check_answer(status, trouble),
        files.check_model(settings.model, state),
        *([daemon.check_models(status), daemon.check_quarantine(status)] if status is not None else []),
        machine.check_memory(memory, pressure_level(read_pressure().worst, memory.headroom_bytes)),
        files.check_disk(free, total, state),
        machine.check_clock(datetime.datetime.now(datetime.UTC), machine.clock_synchronised()),
        machine.check_heat(read_thermal()),
        daemon.check_crashes(status, unit),
        daemon.check_updates(_update_report(state), time.time()),
    ]


def _state(settings: Settings) -> Path:
    """Where the daemon on this box keeps its state: an installed service's, unless a setting says otherwise."""
    system = Path("/var/lib/edged")
    return system if not settings.state_dir and _service_user() and system.is_dir() else settings.state_path


def _ask(endpoint: str | None) -> tuple[dict[str, Any] | None, str, str]:
    """What the daemon says of itself, or why it says nothing; and the endpoint asked."""
    from edged.client import Client
    from edged.protocol.endpoint import find_endpoint

    try:
        with Client(endpoint) as client:
            return client.status().raw, "", client.endpoint
    except EdgedError as error:
        return None, str(error), endpoint or find_endpoint()


def _service_user() -> tuple[int, int] | None:
    """uid and gid of the installed service's user."""
    import grp

    try:
        return pwd.getpwnam("edged").pw_uid, grp.getgrnam("edged-clients").gr_gid
    except KeyError:
        return None


def _unit() -> dict[str, str]:
    """What systemd says of the service; nothing where it does not run or does not know it."""
    shown = _tool("systemctl", "show", "edged.service", "-p", "LoadState,ActiveState,Result,NRestarts,StatusText")
    unit = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return unit if unit.get("LoadState") == "loaded" else {}


def _tool(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TOOL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _space(state: Path) -> tuple[int, int | None]:
    """Total and free bytes where the state is, or will be."""
    place = next((folder for folder in (state, *state.parents) if folder.exists()), Path("/"))
    try:
        about = shutil.disk_usage(place)
    except OSError:
        return 0, None
    return about.total, about.free


def _update_report(state: Path) -> dict[str, Any] | None:
    try:
        report = jsonlib.loads((state / "update/status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def _texts(
    settings: Settings,
    origin: Mapping[str, str],
    checks: list[Check],
    status: Mapping[str, Any] | None,
    unit: Mapping[str, str],
) -> dict[str, str]:
    """What support reads: each a file of the archive."""
    from importlib import metadata

    from edged.hardware.probe import probe

    state = _state(settings)
    packages = sorted(f"{found.name}=={found.version}" for found in metadata.distributions())
    config = [f"{name} = {getattr(settings, name)!r}  # {origin.get(name, '')}" for name in type(settings).model_fields]
    return {
        "doctor.txt": "\n".join(check.line() for check in checks) + "\n",
        "settings.txt": "\n".join(config) + "\n",
        "status.json": jsonlib.dumps(status, indent=2, default=str),
        "probe.json": jsonlib.dumps(probe(disk_path=state).to_dict(), indent=2, default=str),
        "packages.txt": "\n".join(packages) + "\n",
        "unit.txt": "\n".join(f"{name}={value}" for name, value in unit.items()) + "\n",
        "unit-files.txt": _tool("systemctl", "cat", "--no-pager", "edged.service"),
        "journal.txt": _tool(
            "journalctl", "-u", "edged", "-u", "edged-update", "-n", "5000", "-o", "short-iso", "--no-pager"
        ),
        "update.json": jsonlib.dumps(_update_report(state), indent=2),
        "os-release.txt": _tool("cat", "/etc/os-release"),
    }
