"""One engine process: start it, hear of its end at once, kill it. Knows nothing of requests."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged import children
from edged.protocol import pulse
from edged.protocol.endpoint import MAX_IPC_PATH_BYTES

MODULE = "edged.engine.worker"


@dataclass(frozen=True, slots=True)
class Exit:
    """How it ended: `returncode` as subprocess gives it (negative: the signal)."""

    returncode: int

    def describe(self) -> str:
        if self.returncode < 0:
            try:
                return f"signal {signal.Signals(-self.returncode).name}"
            except ValueError:  # most real-time signals have no name
                return f"signal {-self.returncode}"
        return f"exit status {self.returncode}"


def private_directory(beside: Path | None) -> Path:
    """A fresh 0700 directory for the front-engine channel, near the public socket where its path is short enough."""
    if beside is not None and os.access(beside, os.W_OK) and len(str(beside).encode()) < MAX_IPC_PATH_BYTES - 40:
        _sweep(beside)
        return Path(tempfile.mkdtemp(prefix=f"engine-{os.getpid()}-", dir=beside))
    return Path(tempfile.mkdtemp(prefix="edged-engine-", dir="/tmp"))


def _sweep(beside: Path) -> None:
    """Take away what fronts left that were killed; their number is in the name."""
    for left in beside.glob("engine-*-*"):
        pid = left.name.split("-")[1]
        if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(left, ignore_errors=True)


class EngineProcess:
    """Owns a child process, its pulse and the pidfd that tells of its end. `on_exit(Exit)` is called once. The child
    gets the descriptors `inherit` too."""

    def __init__(
        self, endpoint: str, options: dict[str, Any], on_exit: Callable[[Exit], None], inherit: Sequence[int] = ()
    ) -> None:
        self._on_exit = on_exit
        self.started_s = time.monotonic()
        pulse_fd = pulse.create()
        self.pulse = pulse.PulseReader(pulse_fd)
        try:
            self._child = subprocess.Popen(
                children.command(MODULE, endpoint, str(pulse_fd), str(os.getpid())),
                stdin=subprocess.PIPE,
                pass_fds=(pulse_fd, *inherit),
                start_new_session=True,  # a terminal's Ctrl-C is for the front, which drains
                env=children.environment(ORT_DISABLE_TELEMETRY="1"),
            )
        finally:
            os.close(pulse_fd)
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(options).encode())
            self._child.stdin.close()
        except BrokenPipeError:
            pass  # it died already; the pidfd tells
        self._pidfd = os.pidfd_open(self._child.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    @property
    def pid(self) -> int:
        return self._child.pid

    def kill(self) -> None:
        """End it now; its end is reported like any other."""
        if self._child.returncode is None:
            self._child.kill()

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        returncode = self._child.wait()
        self._on_exit(Exit(returncode))

    def close(self) -> None:
        """Let go of the pulse; call after the end was reported and the last beat read."""
        self.pulse.close()
