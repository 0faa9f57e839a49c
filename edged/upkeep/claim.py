"""Which daemon keeps the models of a state directory: a locked file that says where it listens.

Two daemons may share a state directory; one of them tests and takes over new versions. The lock ends with its holder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from edged.store.durable import make_folder

FILE = "daemon"
MAX_BYTES = 1024
TRIES, WAIT_S = 20, 0.05  # somebody who only looks holds it for a moment


def claim(state: Path, endpoint: str) -> int | None:
    """A descriptor that holds the claim until it is closed; None when another daemon has it. Raises OSError."""
    make_folder(state / "update")
    descriptor = os.open(state / "update" / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    for _ in range(TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, endpoint.encode(), 0)
            return descriptor
        time.sleep(WAIT_S)
    os.close(descriptor)
    return None


def claimant(state: Path) -> str | None:
    """Where the daemon listens that keeps these models; None when there is none. Raises OSError when it is hidden."""
    try:
        descriptor = os.open(state / "update" / FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return os.pread(descriptor, MAX_BYTES, 0).decode("utf-8", "replace") or None
    finally:
        os.close(descriptor)
