"""How much memory this process may still take: the machine's and every cgroup's, read now.

Swap and zram are never counted: a model that decodes from swap is as good as down. What a reading is spent on
(weights, reserve, KV) is worked out in budget.py. Needs no more than /proc/self when /proc/meminfo is hidden
(systemd's ProcSubset=pid).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edged.errors import HardwareError
from edged.hardware.cgroup import CgroupMemory, memory_cgroups
from edged.hardware.files import parse_int
from edged.hardware.tree import Tree


@dataclass(frozen=True)
class MemoryReading:
    """One look at memory, in bytes. `cgroups` holds only ancestors that set a limit."""

    total_bytes: int
    available_bytes: int
    source: str
    cgroups: tuple[CgroupMemory, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def limit_bytes(self) -> int | None:
        """The tightest cgroup limit; None where none is set."""
        return min((group.limit_bytes for group in self.cgroups), default=None)

    @property
    def usable_total_bytes(self) -> int:
        """What this process could ever have: the machine's memory or the tightest limit."""
        return min([self.total_bytes, *(group.limit_bytes for group in self.cgroups)])

    @property
    def headroom_bytes(self) -> int:
        """What may be taken now: the least of MemAvailable and of what is left below each limit."""
        return min([self.available_bytes, *(group.headroom_bytes for group in self.cgroups)])

    @property
    def binding(self) -> str:
        """What sets the headroom: "machine" or the path of a cgroup."""
        tightest = min(self.cgroups, key=lambda group: group.headroom_bytes, default=None)
        return tightest.path if tightest and tightest.headroom_bytes < self.available_bytes else "machine"


@dataclass(frozen=True)
class ProcessMemory:
    """Resident memory of one process (bytes); the split is None on kernels before 4.5.

    `file_bytes` holds mapped weights, which the kernel can drop and read again; `anon_bytes` it cannot.
    """

    rss_bytes: int
    anon_bytes: int | None = None
    file_bytes: int | None = None
    shmem_bytes: int | None = None


def read_memory(root: Path | Tree = Path("/")) -> MemoryReading:
    """Reads memory below `root`. Raises HardwareError when not even the kernel's sysinfo gives a total."""
    tree, problems = Tree.of(root), list[str]()
    info = _kib_table(tree, "proc/meminfo")
    total, available, source = info.get("MemTotal", 0), info.get("MemAvailable"), "/proc/meminfo"
    if total > 0 and available is None:  # kernels before 3.14, some containers
        available = info.get("MemFree", 0)
        problems.append("/proc/meminfo: no MemAvailable; MemFree is used, which is less")
    if total <= 0 or available is None:
        total, available = _sysinfo()
        source = "sysinfo"
        problems.append("/proc/meminfo: not readable; the kernel's free memory is used, which is less than available")
    cgroups, odd = memory_cgroups(tree)
    return MemoryReading(total, min(available, total), source, cgroups, (*problems, *odd))


def process_rss(pid: int | None = None, root: Path | Tree = Path("/")) -> ProcessMemory | None:
    """Resident memory of `pid` (None: this process) as /proc/PID/status has it; None when it is gone or hidden."""
    status = _kib_table(Tree.of(root), f"proc/{pid or 'self'}/status")
    if "VmRSS" not in status:
        return None
    return ProcessMemory(status["VmRSS"], status.get("RssAnon"), status.get("RssFile"), status.get("RssShmem"))


def own_rss_reader(path: Path = Path("/proc/self/statm")) -> Callable[[], int]:
    """A function that gives this process's resident memory (bytes) in microseconds and opens nothing, from any thread.

    Raises OSError when /proc is not there.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    return lambda: int(os.pread(fd, 128, 0).split()[1]) * page_bytes


def process_pss(pid: int | None = None, root: Path | Tree = Path("/")) -> int | None:
    """Proportional set size (bytes): shared pages divided among their users, so processes can be added up.

    Walks the page tables: milliseconds per gigabyte, not for every tick. None when not permitted.
    """
    return _kib_table(Tree.of(root), f"proc/{pid or 'self'}/smaps_rollup").get("Pss")


def _kib_table(tree: Tree, path: str) -> dict[str, int]:
    """`Name: 123 kB` lines in bytes; anything else is left out."""
    found = {}
    for line in tree.text(path).splitlines():
        name, _, value = line.partition(":")
        fields = value.split()
        if len(fields) == 2 and fields[1] == "kB" and (kib := parse_int(fields[0])) is not None and kib >= 0:
            found[name.strip()] = kib * 1024
    return found


def _sysinfo() -> tuple[int, int]:
    """(total, free) of the machine this runs on, without /proc."""
    try:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page_bytes, os.sysconf("SC_AVPHYS_PAGES") * page_bytes
    except (ValueError, OSError) as error:
        raise HardwareError(f"memory cannot be read: no /proc/meminfo and no sysinfo ({error})") from error
    if total <= 0:
        raise HardwareError("memory cannot be read: no /proc/meminfo, and sysinfo gives no total")
    return total, max(0, free)
