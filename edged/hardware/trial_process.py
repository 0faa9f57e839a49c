"""What makes a process a trial child: it dies with its parent, speaks on one private descriptor, leaves without ado."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from edged.hardware.files import read_text
from edged.hardware.trial_messages import MeasureAnswer, ProofAnswer, to_json

_PR_SET_PDEATHSIG = 1


class Voice:
    """The private descriptor; the only way an answer leaves this process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def phase(self, name: str) -> None:
        self._say(json.dumps({"phase": name}))

    def answer(self, message: ProofAnswer | MeasureAnswer) -> None:
        self._say(f'{{"answer":{to_json(message)}}}')

    def refuse(self, reason: str) -> None:
        self._say(json.dumps({"refused": reason}))

    def _say(self, line: str) -> None:
        data = line.encode() + b"\n"
        while data:
            data = data[os.write(self._fd, data) :]


def options_of(arguments: list[str]) -> argparse.Namespace:
    """What the parent put on the command line."""
    parser = argparse.ArgumentParser(
        prog="edged.hardware.trial", description="One trial of a provider; started by edged."
    )
    parser.add_argument("mode", choices=("proof", "measure"))
    parser.add_argument("request")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--data-bytes", type=int, default=0)
    parser.add_argument("--fault", default="", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def settle(parent: int, data_bytes: int) -> None:
    """Die with the parent, be the kernel's first choice when memory ends, dump no core, have a hard last ceiling.

    The watched ceiling is the parent's; `data_bytes` (of private writable memory) only stops what outruns it.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_DATA, data_bytes or resource.RLIM_INFINITY)):
        with contextlib.suppress(ValueError, OSError):  # a system call filter may forbid it
            resource.setrlimit(limit, (value, value))


def peak_bytes() -> int:
    """The most this process ever had resident. Not ru_maxrss: that one is inherited from the parent."""
    for line in (read_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def first_lines(text: str) -> str:
    """A C++ message without its page of template names: at most two lines, 400 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " · ".join(lines[:2])[:400]


def leave(run: Callable[[list[str]], int]) -> None:
    """Run and leave without the teardown of native libraries, which may crash after the answer is given."""
    status = run(sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
