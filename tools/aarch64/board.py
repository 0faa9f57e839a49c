"""A command inside the emulated userland, as on one board: its processor, and its own /proc/cpuinfo."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

SLOWNESS = 25
"""How much longer than natively anything may take; measured on an int4 graph, 25 times."""


@dataclass(frozen=True, slots=True)
class Board:
    """`cpu` is qemu's name of the processor; `tree` the recorded board whose cpuinfo is shown."""

    name: str
    cpu: str
    tree: str


PI5 = Board("Raspberry Pi 5", "cortex-a76", "raspberry-pi-5")
PI4 = Board("Raspberry Pi 4", "cortex-a72", "raspberry-pi-4")


def run(root: Path, board: Board, boards: Path, command: list[str], *, timeout_s: float) -> int:
    """Its exit status, 124 when it took too long. Mounts live in a namespace of their own and end with the command.

    onnxruntime opens weights through /proc/self/fd, and crashes when it reads an x86 machine's cpuinfo.
    """
    cpuinfo = boards / board.tree / "proc" / "cpuinfo"
    inside = [
        f"mount -t proc proc {root}/proc",
        f"mount --bind {cpuinfo} {root}/proc/cpuinfo",
        f"mount -t sysfs sys {root}/sys",
        f"mount --rbind /dev {root}/dev",
        f"mount -t tmpfs -o size=4g tmp {root}/tmp",
        f"exec chroot {root} /usr/bin/env -C /src {shlex.join(command)}",
    ]
    environment = {
        "PATH": "/opt/edged/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "HOME": "/root",
        "QEMU_CPU": board.cpu,
        "ORT_DISABLE_TELEMETRY": "1",
        "EDGED_TEST_SLOWNESS": str(SLOWNESS),
        "PYTHONPYCACHEPREFIX": "/var/cache/pyc",
        "PYTHONPATH": "/src:/src/tools",
    }
    shell = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    process = subprocess.Popen([*shell, "sh", "-ec", "\n".join(inside)], env=environment, stdin=subprocess.DEVNULL)
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return 124
    finally:
        if process.poll() is None:
            process.kill()
