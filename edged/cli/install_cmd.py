"""`edged install` and `edged uninstall`: put the service in place on this machine, and take it away again."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edged.errors import OwnerError

if TYPE_CHECKING:
    from edged.service.commands import Command
    from edged.service.units import DeviceFacts

HIDDEN_FROM_THE_SERVICE = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
PACKAGE_UNITS = ("usr/lib/systemd/system/edged.service", "lib/systemd/system/edged.service")

Root = Annotated[Path, typer.Option("--root", metavar="DIR", help="Write below DIR (an image) and run no command.")]


def install(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print every file and command; change nothing.")] = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Enable and start the service.")] = True,
    devices: Annotated[bool, typer.Option("--devices/--no-devices", help="Let the accelerators found in.")] = True,
    root: Root = Path("/"),
) -> None:
    """Install edged as a systemd service of this machine. May run again: what is in place already is left alone."""
    from edged.service import commands
    from edged.service.apply import apply
    from edged.service.plan import UNIT_FOLDER, plan_install
    from edged.service.units import PACKAGED_PROGRAM, TCP_SOCKET

    packaged = _packaged(root)
    own = not packaged and root == Path("/")
    program = str(_own_program()) if own else PACKAGED_PROGRAM
    tcp_endpoint = _tcp_endpoint(root)
    plan = plan_install(program, _devices() if devices else (), packaged=packaged, tcp_endpoint=tcp_endpoint)
    tcp_goes = UNIT_FOLDER / TCP_SOCKET in plan.remove and (root / f"etc/systemd/system/{TCP_SOCKET}").exists()
    if dry_run:
        for file in plan.write:
            typer.echo(f"--- {file.path}{'  (kept if it is there)' if file.keep else ''}\n{file.text}")
        _say(commands.before_install(tcp_goes=tcp_goes))
        _say(commands.after_install(packaged=packaged, changed=True, start=start, tcp=bool(tcp_endpoint)))
        return
    _need_root(root, "install")
    if own:
        _check_visible(_own_program())
    if root == Path("/"):
        _run(commands.before_install(tcp_goes=tcp_goes))
    done = apply(plan, root)
    for what, path in done:
        typer.echo(f"{what:9} {path}")
    changed = any(what in ("wrote", "removed") for what, _ in done)
    if root == Path("/"):
        _run(commands.after_install(packaged=packaged, changed=changed, start=start, tcp=bool(tcp_endpoint)))
        typer.echo("Let a user in:  sudo usermod -aG edged-clients USER   (then log in again). Check:  edged doctor")


def uninstall(
    purge: Annotated[bool, typer.Option("--purge", help="Also remove models, state, settings and the user.")] = False,
    root: Root = Path("/"),
) -> None:
    """Stop the service and remove its files. Models, state and settings stay unless --purge is given."""
    from edged.service import commands
    from edged.service.apply import remove
    from edged.service.units import TCP_SOCKET

    packaged = _packaged(root)
    _need_root(root, "uninstall")
    live = root == Path("/")
    units = root / "etc/systemd/system"
    if live and ((units / "edged.service").exists() or (units / TCP_SOCKET).exists()):
        _run(commands.before_removal(packaged=packaged, tcp=(units / TCP_SOCKET).exists()))
    done = remove(root, purge=purge and not packaged)
    for what, path in done:
        typer.echo(f"{what:9} {path}")
    if live:
        _run(commands.after_removal(packaged=packaged, purge=purge and _user_exists()))
    if packaged:
        typer.echo(f"The rest belongs to the Debian package: sudo apt {'purge' if purge else 'remove'} edged")
    elif not done:
        typer.echo("nothing was installed")


def _tcp_endpoint(root: Path) -> str:
    """As the settings of that machine have it."""
    from edged.config import load

    file = root / "etc/edged/edged.toml"
    return load(file=file)[0].tcp_endpoint if file.exists() else ""


def _own_program() -> Path:
    """The edged command of the environment that runs now."""
    return Path(sysconfig.get_path("scripts")) / "edged"


def _check_visible(program: Path) -> None:
    """Raises OwnerError where the hardened service could not see its own program."""
    if not program.exists():
        raise OwnerError(f"{program}: not there; install edged with pip into its own environment, such as /opt/edged")
    for path in (program, Path(sys.prefix), Path(sys.base_prefix).resolve()):
        if any(path.is_relative_to(hidden) for hidden in HIDDEN_FROM_THE_SERVICE):
            raise OwnerError(
                f"{path}: the service cannot see this place; make the environment where all may read, with the "
                f"system's Python: sudo /usr/bin/python3 -m venv /opt/edged && sudo /opt/edged/bin/pip install edged"
            )


def _packaged(root: Path) -> bool:
    return any((root / unit).exists() for unit in PACKAGE_UNITS)


def _devices() -> tuple[DeviceFacts, ...]:
    """What the probe found that a provider would open, with the companions that exist and the groups that own them."""
    from edged.hardware.probe import probe
    from edged.service.units import COMPANION_NODES, DeviceFacts

    found = []
    for device in probe().accelerators:
        globs = (device.node or "", *COMPANION_NODES.get(device.driver, ()))
        nodes = sorted({str(path) for glob in globs if glob for path in Path("/").glob(glob.lstrip("/"))})
        found.append(DeviceFacts(device.name, tuple(nodes), tuple(sorted(_groups(nodes)))))
    return tuple(found)


def _groups(nodes: Iterable[str]) -> set[str]:
    """Groups one must be in to open these nodes; none for those open to all, or to root alone."""
    groups = set()
    for node in nodes:
        mode = Path(node).stat().st_mode
        group = Path(node).group()
        if mode & 0o060 and not mode & 0o006 and group != "root":
            groups.add(group)
    return groups


def _user_exists() -> bool:
    import pwd

    try:
        pwd.getpwnam("edged")
    except KeyError:
        return False
    return True


def _need_root(root: Path, command: str) -> None:
    if root == Path("/") and os.geteuid() != 0:
        raise OwnerError(f"this changes the system: sudo edged {command}")


def _say(commands: Iterable[Command]) -> None:
    for command in commands:
        typer.echo(f"run       {shlex.join(command)}")


def _run(commands: Iterable[Command]) -> None:
    """Run them in order. Where systemd does not run (a container, an image) those for it are only named."""
    booted = Path("/run/systemd/system").is_dir()
    for command in commands:
        if command[0] == "systemctl" and not booted:
            typer.echo(f"left out  {shlex.join(command)}   (systemd does not run here)")
            continue
        if shutil.which(command[0]) is None:
            raise OwnerError(f"{command[0]} is not here; install the systemd package of this distribution")
        _say([command])
        if subprocess.run(command, check=False).returncode != 0:
            raise OwnerError(f"failed: {shlex.join(command)}; its own message is above, `journalctl -u edged` has more")
