"""Word to the service manager (sd_notify(3)): READY, STATUS, WATCHDOG, STOPPING. Silent when there is none."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any

FIRST_FD = 3


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


def listening_socket() -> int | None:
    """The descriptor of the one socket that the service manager listens on for us (sd_listen_fds(3)), if it does."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    os.set_inheritable(FIRST_FD, False)
    os.set_blocking(FIRST_FD, False)
    return FIRST_FD


def watchdog_interval_s() -> float | None:
    """How often to send WATCHDOG=1: half of what the unit's WatchdogSec asks for; None when it does not."""
    try:
        usec = int(os.environ.get("WATCHDOG_USEC", "0"))
        pid = int(os.environ.get("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return None
    return usec / 2e6 if usec > 0 and pid == os.getpid() else None


def status_text(model: str, state: str, reason: str, facts: Mapping[str, Any], others: int = 0) -> str:
    """The one line that `systemctl status` shows: the model, its provider, memory and queue, or what is wrong.

    `facts`: what the engine said of itself, in the names of `status`; what it did not say is left out.
    `others`: more models that are ready.
    """
    if state == "failed":
        return _one_line(f"degraded: model {model} failed {reason}")
    parts = [f"model {model} {state} {reason}".rstrip()]
    if state == "ready":
        provider, memory = facts.get("provider"), facts.get("memory")
        if provider:
            parts[0] += f" on {provider}"
        if isinstance(memory, Mapping) and memory.get("rss_bytes"):
            parts.append(f"memory {memory['rss_bytes'] / 1e6:.0f} MB")
        if "running" in facts:
            parts.append(f"{facts['running']} running, {facts.get('waiting', 0)} waiting")
    if others:
        parts.append(f"{others} more model{'s' if others > 1 else ''} ready")
    return _one_line(", ".join(parts))


def _one_line(text: str) -> str:
    """A second line would be another assignment to the service manager."""
    return " ".join(text.split())
