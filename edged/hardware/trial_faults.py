"""Faults a trial child commits on purpose, so that the tests see real ones caught. Off unless EDGED_DEBUG_FAULTS=1.

Nothing here is simulated: the signal is raised, the loop never ends, the memory is touched.
"""

from __future__ import annotations

import os
import signal
import sys
import time

FAULTS = ("crash", "hang", "lie", "hoard", "leave", "chatter", "spawn")
_PAGE = 4096


def commit(fault: str) -> bool:
    """Commit `fault`; returns whether the child shall answer wrongly ("lie"). Raises ValueError on an unknown name.

    crash: a real SIGSEGV · hang: never returns, signals to end nicely ignored · hoard: touches memory for ever ·
    leave: ends without an answer · chatter: 4 MiB on stdout and stderr, then goes on · spawn: leaves a grandchild that
    keeps the pipes open, then crashes.
    """
    if fault not in FAULTS:
        raise ValueError(f"no such fault: {fault}")
    if fault == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif fault == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(3600)
    elif fault == "hoard":
        _hoard()
    elif fault == "leave":
        os._exit(3)
    elif fault == "chatter":
        for _ in range(64):
            os.write(1, b"noise on stdout " * 2048)
            os.write(2, b"noise on stderr " * 2048)
    elif fault == "spawn":
        grandchild = os.fork()
        if grandchild == 0:
            time.sleep(3600)
        os.write(1, f"grandchild {grandchild}\n".encode())
        os.kill(os.getpid(), signal.SIGSEGV)
    return fault == "lie"


def _hoard() -> None:
    """Grow by 16 MiB at a time, every page touched."""
    kept = []
    while True:
        block = bytearray(16 << 20)
        block[::_PAGE] = b"x" * len(block[::_PAGE])
        kept.append(block)


def allowed() -> bool:
    """Whether this process may commit faults at all."""
    return os.environ.get("EDGED_DEBUG_FAULTS") == "1" and sys.platform == "linux"
