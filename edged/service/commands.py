"""The commands around the files: make users, reload, enable, start; and the way back. Pure lists of arguments."""

from __future__ import annotations

from edged.service.units import METRICS_UNIT, SERVICE, TCP_SOCKET, UPDATE_UNITS

Command = tuple[str, ...]

_RELOAD: Command = ("systemctl", "daemon-reload")


def before_install(*, tcp_goes: bool) -> list[Command]:
    """What must be stopped before its file goes."""
    return [("systemctl", "disable", "--now", TCP_SOCKET)] if tcp_goes else []


def after_install(*, packaged: bool, changed: bool, start: bool, tcp: bool = False) -> list[Command]:
    """What makes a written plan take effect. A service that runs and whose units are unchanged is left running.

    `tcp`: systemd listens for the service; it hands its socket over only to a service that starts after it.
    """
    commands: list[Command] = []
    if not packaged:
        commands += [("systemd-sysusers", "edged.conf"), ("systemd-tmpfiles", "--create", "edged.conf")]
    commands.append(_RELOAD)
    if start:
        commands.append(("systemctl", "enable", SERVICE, *UPDATE_UNITS[1:]))
        if tcp:
            commands.append(("systemctl", "enable", TCP_SOCKET))
        if tcp and changed:
            commands += [("systemctl", "stop", SERVICE), ("systemctl", "restart", TCP_SOCKET)]
        commands.append(("systemctl", "restart" if changed else "start", SERVICE))
        commands.append(("systemctl", "start", *UPDATE_UNITS[1:]))
    return commands


def before_removal(*, packaged: bool, tcp: bool = False) -> list[Command]:
    """Stop what runs from the files about to go. The package's own units are the package's to stop."""
    commands = before_install(tcp_goes=tcp)
    if not packaged:
        commands.append(("systemctl", "disable", "--now", METRICS_UNIT, SERVICE, *UPDATE_UNITS[1:]))
    return commands


def after_removal(*, packaged: bool, purge: bool) -> list[Command]:
    """Forget the units and, with `purge`, the user and the group."""
    commands = [_RELOAD]
    if packaged:
        commands.append(("systemctl", "try-restart", SERVICE))
    elif purge:
        commands += [("userdel", "edged"), ("groupdel", "edged-clients")]
    return commands
