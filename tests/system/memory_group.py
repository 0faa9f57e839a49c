"""A memory cgroup made outside of the container, whose limit a third process makes everybody in it meet.

Owns the group and the balloon: a process that may not be killed and asks for more than the limit leaves.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

HEADROOM_BYTES = 16 * 2**20
V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")
BALLOON = """
import sys
open("/proc/self/oom_score_adj", "w").write("-1000")
open(sys.argv[1], "w").write("0")
held = bytearray(int(sys.argv[2]))
for page in range(0, len(held), 4096):
    held[page] = 1
"""


class MemoryGroup:
    """Use it in a `with`; what is in the group at the end goes back to where the group lies, without a limit."""

    def __init__(self) -> None:
        self.version = "cgroup v1" if V1.is_dir() else "cgroup v2"
        base = V1 if V1.is_dir() else V2
        self._path = base / "edged-system-test"
        self._limit = self._path / ("memory.limit_in_bytes" if base == V1 else "memory.max")
        self._anonymous = "total_rss" if base == V1 else "anon"

    def __enter__(self) -> MemoryGroup:
        if self.version == "cgroup v2":
            with suppress(OSError):
                (V2 / "cgroup.subtree_control").write_text("+memory")
        self._path.mkdir(exist_ok=True)
        if not self._limit.exists():
            self._path.rmdir()
            raise RuntimeError("this machine has no memory controller to give")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._limit.write_text("-1" if self.version == "cgroup v1" else "max")
        for pid in self.pids():
            with suppress(OSError):
                (self._path.parent / "cgroup.procs").write_text(str(pid))
        with suppress(OSError):
            self._path.rmdir()

    def take(self, pid: int) -> None:
        """Move a process in; children that it starts later are born here."""
        (self._path / "cgroup.procs").write_text(str(pid))

    def pids(self) -> set[int]:
        """Who is in."""
        return {int(pid) for pid in (self._path / "cgroup.procs").read_text().split()}

    def overrun(self, largest: int) -> float:
        """Set a limit just above what is used, then ask for half of what `largest` holds; seconds until that was had.

        The memory is there as soon as `largest` is gone, and not before.
        """
        held = _anonymous_bytes(largest)
        self._limit.write_text(str(self._used() + HEADROOM_BYTES))
        started_s = time.monotonic()
        wanted = HEADROOM_BYTES + held // 2
        command = [sys.executable, "-c", BALLOON, str(self._path / "cgroup.procs"), str(wanted)]
        subprocess.run(command, check=True, timeout=60)
        return time.monotonic() - started_s

    def _used(self) -> int:
        stat = dict(line.split() for line in (self._path / "memory.stat").read_text().splitlines())
        return int(stat[self._anonymous])


def _anonymous_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} is gone")
