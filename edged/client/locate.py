"""Where the daemon is: the endpoints a client looks at, in order, and whether somebody listens there.

ZeroMQ connects to nobody without complaint and waits; one plain connect first turns that into a word at once.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from edged.client.errors import DaemonNotFound, UsageError
from edged.client.network import needs_key, trouble_over_tcp
from edged.errors import ConfigError
from edged.protocol.endpoint import SYSTEM_SOCKET, socket_path, user_socket
from edged.protocol.keys import ClientKey, read_client_key

CONNECT_S = 1.0
NO_PERMISSION = "permission denied; this user may not use that daemon (ask to be put into group edged-clients)"
_WHY = {
    errno.ENOENT: "no such socket",
    errno.ENOTDIR: "no such socket",
    errno.ECONNREFUSED: "nobody listens there; its daemon has ended",
    errno.EACCES: NO_PERMISSION,
    errno.EPERM: NO_PERMISSION,
    errno.ENOTSOCK: "not a socket",
    errno.EPROTOTYPE: "not the socket of an edged daemon",
}


def find_key(key: str | Path | ClientKey | None = None) -> ClientKey | None:
    """The key given, as it is or as its file, else of the file in EDGED_KEY_FILE. Raises UsageError for a bad file."""
    if isinstance(key, ClientKey):
        return key
    path = key or os.environ.get("EDGED_KEY_FILE")
    try:
        return read_client_key(Path(path)) if path else None
    except ConfigError as error:
        raise UsageError(str(error)) from None


def find_daemon(endpoint: str | None = None, key: ClientKey | None = None) -> str:
    """The endpoint of a daemon that listens: the one given, or EDGED_ENDPOINT, or the user's, or the system's.

    Raises DaemonNotFound naming every endpoint looked at and what is wrong there.
    """
    named = endpoint or os.environ.get("EDGED_ENDPOINT")
    candidates = [named] if named else [f"ipc://{user_socket()}", f"ipc://{SYSTEM_SOCKET}"]
    looked_at = []
    for candidate in candidates:
        why = trouble_at(candidate)
        if not why and needs_key(candidate):
            why = trouble_over_tcp(candidate, key or find_key())
        if not why:
            return candidate
        looked_at.append((candidate, why))
    raise DaemonNotFound(tuple(looked_at))


def trouble_at(endpoint: str) -> str:
    """What is wrong with an endpoint, "" when somebody listens or only ZeroMQ itself can tell (tcp, abstract ipc)."""
    path = socket_path(endpoint)
    if path is None:
        return "" if "://" in endpoint else "not a ZeroMQ endpoint; they look like ipc:///run/edged/edged.sock"
    if str(path).startswith("@"):
        return ""
    if not _is_trusted(path.parent):
        return "its directory belongs to another user, who is not trusted"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_S)
            probe.connect(str(path))
    except TimeoutError:
        return ""  # somebody listens and is busy
    except OSError as error:
        if error.errno in (errno.EAGAIN, None) and path.is_socket():
            return ""
        return _WHY.get(error.errno or 0, error.strerror or str(error))
    return ""


def _is_trusted(directory: Path) -> bool:
    """/tmp is open to all: a directory there that another user made could hold an impostor's socket."""
    if directory.parent != Path("/tmp"):
        return True
    try:
        return directory.lstat().st_uid in (os.getuid(), 0)
    except OSError:
        return True  # the connect says what is wrong
