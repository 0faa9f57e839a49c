"""What the unit files say on this machine: the shipped text with its program's path, and drop-ins made from facts.

Pure: facts are passed in, text comes out. Nothing is read but the shipped files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edged.errors import OwnerError

PACKAGED_PROGRAM = "/opt/edged/bin/edged"
"""Where the shipped units and the Debian package have it."""

SERVICE = "edged.service"
TCP_SOCKET = "edged-tcp.socket"
METRICS_UNIT = "edged-metrics.service"
UPDATE_UNITS = ("edged-update.service", "edged-update.path", "edged-update.timer")
DEVICES_DROP_IN = "50-devices.conf"
_PACKAGE = Path(__file__).resolve().parent.parent

COMPANION_NODES = {
    "nvidia": ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"),
    "nvgpu": ("/dev/nvmap", "/dev/nvgpu/igpu0/*", "/dev/nvhost-*", "/dev/host1x-fence", "/dev/dri/renderD*"),
    "nvdla": ("/dev/nvmap", "/dev/nvhost-*"),
    "amdgpu": ("/dev/kfd",),
    "fastrpc": ("/dev/fastrpc-*", "/dev/dma_heap/system"),
    "rknpu": ("/dev/dri/renderD*", "/dev/dma_heap/system"),
}
"""Nodes that a driver's user side opens beside the device's own, as globs, by driver name of the probe."""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """One accelerator the service is to reach: its `name` for the reader, `nodes` that exist, and the `groups` that own
    them (none for nodes open to all or to root alone)."""

    name: str
    nodes: tuple[str, ...]
    groups: tuple[str, ...]


def shipped_folder() -> Path:
    """The unit files: inside the installed package, or beside it in a source checkout."""
    packaged = _PACKAGE / "_systemd"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "systemd"


def shipped(name: str, program: str = PACKAGED_PROGRAM) -> str:
    """A shipped file's text with `program` (absolute path of the edged command) in place of the package's.

    Raises OwnerError for a path that a unit file cannot hold.
    """
    if not program.startswith("/") or any(sign.isspace() or sign in "\"'\\%$;" for sign in program):
        raise OwnerError(f"{program}: a unit file cannot name this path; install edged where it has plain characters")
    return (shipped_folder() / name).read_text(encoding="utf-8").replace(PACKAGED_PROGRAM, program)


def tcp_socket(endpoint: str) -> str | None:
    """The unit by which systemd listens on TCP for the service, so that the service itself needs no network.

    `endpoint`: the setting `tcp_endpoint`; None when it is empty. Raises OwnerError for one that systemd cannot hold.
    """
    if not endpoint:
        return None
    found = re.fullmatch(r"tcp://(\*|[0-9.]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", endpoint)
    if found is None:
        raise OwnerError(f"tcp_endpoint: {endpoint!r} is not of the form tcp://ADDRESS:PORT; * is every address")
    address, port = found.groups()
    lines = [
        "# Made by `edged install` from tcp_endpoint of the settings; made anew by each `edged install`.",
        "[Unit]",
        "Description=edged over TCP, for clients with a key",
        "Documentation=file:///usr/share/doc/edged/operations.md",
        "",
        "[Socket]",
        f"ListenStream={port if address == '*' else f'{address}:{port}'}",
        f"Service={SERVICE}",
        "Backlog=1024",
        "FreeBind=yes",
        "",
        "[Install]",
        "WantedBy=sockets.target",
    ]
    return "\n".join(lines) + "\n"


def devices_drop_in(devices: tuple[DeviceFacts, ...]) -> str | None:
    """The drop-in that lets the service reach these devices and no others; None when there are none to reach.

    Code made at run time (GPU kernels) needs memory that is written and then run, so that wall comes down with it.
    """
    nodes = sorted({node for device in devices for node in device.nodes})
    if not nodes:
        return None
    groups = sorted({group for device in devices for group in device.groups})
    lines = [
        "# Made by `edged install` from what the probe found; made anew by each `edged install`.",
        *(f"# {device.name}" for device in devices if device.nodes),
        "[Service]",
        "PrivateDevices=no",
        "DevicePolicy=closed",
        *(f"DeviceAllow={node} rw" for node in nodes),
        *([f"SupplementaryGroups={' '.join(groups)}"] if groups else []),
        "MemoryDenyWriteExecute=no",
    ]
    return "\n".join(lines) + "\n"
