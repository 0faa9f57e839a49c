"""Word to the service manager (sd_notify(3)): READY, STATUS, WATCHDOG, STOPPING. Silent when there is none."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*states: str) -> bool:
    """Send e.g. "READY=1", "STATUS=serving". False when no service manager listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "@/":
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.connect("\0" + address[1:] if address[0] == "@" else address)
        out.sendall("\n".join(states).encode())
        return True
    return False


def watchdog_interval_s() -> float | None:
    """How often to send WATCHDOG=1: half of what the unit's WatchdogSec asks for; None when it does not."""
    try:
        usec = int(os.environ.get("WATCHDOG_USEC", "0"))
        pid = int(os.environ.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return None
    return usec / 2e6 if usec > 0 and pid == os.getpid() else None
