"""Where the daemon listens and where clients look: `EDGED_ENDPOINT`, then the user's socket, then the system's."""

from __future__ import annotations

import os
from pathlib import Path

SYSTEM_SOCKET = Path("/run/edged/edged.sock")
MAX_IPC_PATH_BYTES = 107  # sun_path holds 108 bytes with its final NUL


def user_socket() -> Path:
    """The socket of a daemon run by this ordinary user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "edged.sock" if runtime else Path(f"/tmp/edged-{os.getuid()}/edged.sock")


def listen_endpoint() -> str:
    """Where a daemon started now listens unless told otherwise: the system's socket for root and under systemd."""
    from_systemd = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    if from_systemd:
        return f"ipc://{from_systemd}/edged.sock"
    return f"ipc://{SYSTEM_SOCKET if os.getuid() == 0 else user_socket()}"


def find_endpoint() -> str:
    """Where a client finds the daemon: the first socket that is there, else the one a daemon started now would make."""
    named = os.environ.get("EDGED_ENDPOINT")
    if named:
        return named
    for path in (user_socket(), SYSTEM_SOCKET):
        if path.is_socket():
            return f"ipc://{path}"
    return listen_endpoint()


def socket_path(endpoint: str) -> Path | None:
    """The file behind an ipc endpoint, None for other transports."""
    return Path(endpoint.removeprefix("ipc://")) if endpoint.startswith("ipc://") else None
