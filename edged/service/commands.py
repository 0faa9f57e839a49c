"""The commands around the files: make users, reload, enable, start; and the way back. Pure lists of arguments."""

from __future__ import annotations

from edged.service.units import SERVICE, UPDATE_UNITS

Command = tuple[str, ...]

_RELOAD: Command = ("systemctl", "daemon-reload")


def after_install(*, packaged: bool, changed: bool, start: bool) -> list[Command]:
    """What makes a written plan take effect. A service that runs and whose units are unchanged is left running."""
    commands: list[Command] = []
    if not packaged:
        commands += [("systemd-sysusers", "edged.conf"), ("systemd-tmpfiles", "--create", "edged.conf")]
    commands.append(_RELOAD)
    if start:
        commands.append(("systemctl", "enable", SERVICE, *UPDATE_UNITS[1:]))
        commands.append(("systemctl", "restart" if changed else "start", SERVICE))
        commands.append(("systemctl", "start", *UPDATE_UNITS[1:]))
    return commands


def before_removal(*, packaged: bool) -> list[Command]:
    """Stop what runs from the files about to go. The package's own units are the package's to stop."""
    if packaged:
        return []
    return [("systemctl", "disable", "--now", SERVICE, *UPDATE_UNITS[1:])]


def after_removal(*, packaged: bool, purge: bool) -> list[Command]:
    """Forget the units and, with `purge`, the user and the group."""
    commands = [_RELOAD]
    if packaged:
        commands.append(("systemctl", "try-restart", SERVICE))
    elif purge:
        commands += [("userdel", "edged"), ("groupdel", "edged-clients")]
    return commands
