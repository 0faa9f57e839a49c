"""Which files an installation consists of, as a list that can be printed before anything is written. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from edged.service.units import (
    DEVICES_DROP_IN,
    METRICS_UNIT,
    SERVICE,
    TCP_SOCKET,
    UPDATE_UNITS,
    DeviceFacts,
    devices_drop_in,
    shipped,
    tcp_socket,
)

UNIT_FOLDER = PurePosixPath("/etc/systemd/system")
DROP_IN_FOLDER = UNIT_FOLDER / f"{SERVICE}.d"
STATE_FOLDER = PurePosixPath("/var/lib/edged")
TIMER_STAMP = PurePosixPath("/var/lib/systemd/timers/stamp-edged-update.timer")  # systemd's own, of Persistent=
CONFIG_FOLDER = PurePosixPath("/etc/edged")
UNITS = (SERVICE, METRICS_UNIT, *UPDATE_UNITS)
CONFIG_FILE = CONFIG_FOLDER / "edged.toml"


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file to write with mode 0644. `keep` leaves one that exists as it is: it belongs to the owner of the box."""

    path: PurePosixPath
    text: str
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`write` in order; `remove` are files of an earlier installation that this one has no use for."""

    write: tuple[PlannedFile, ...]
    remove: tuple[PurePosixPath, ...]


def unit_files() -> tuple[PurePosixPath, ...]:
    """Every file but the configuration that an installation may have put in place."""
    return (
        *(UNIT_FOLDER / name for name in UNITS),
        PurePosixPath("/etc/sysusers.d/edged.conf"),
        PurePosixPath("/etc/tmpfiles.d/edged.conf"),
        DROP_IN_FOLDER / DEVICES_DROP_IN,
        UNIT_FOLDER / TCP_SOCKET,
    )


def plan_install(program: str, devices: tuple[DeviceFacts, ...], *, packaged: bool, tcp_endpoint: str = "") -> Plan:
    """The files for this machine. `packaged`: the Debian package brought the units, so only what depends on the box is
    ours: the drop-in for devices and the socket for TCP.

    Raises OwnerError for a program path or an endpoint that a unit file cannot hold.
    """
    files: list[PlannedFile] = []
    if not packaged:
        files += [
            PlannedFile(PurePosixPath("/etc/sysusers.d/edged.conf"), shipped("edged.sysusers")),
            PlannedFile(PurePosixPath("/etc/tmpfiles.d/edged.conf"), shipped("edged.tmpfiles")),
            *(PlannedFile(UNIT_FOLDER / name, shipped(name, program)) for name in UNITS),
            PlannedFile(CONFIG_FILE, shipped("edged.toml"), keep=True),
        ]
    drop_in = devices_drop_in(devices)
    if drop_in is not None:
        files.append(PlannedFile(DROP_IN_FOLDER / DEVICES_DROP_IN, drop_in))
    socket = tcp_socket(tcp_endpoint)
    if socket is not None:
        files.append(PlannedFile(UNIT_FOLDER / TCP_SOCKET, socket))
    written = {file.path for file in files}
    return Plan(tuple(files), tuple(path for path in unit_files() if path not in written))
