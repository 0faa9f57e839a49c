"""A memory cgroup of our own, v1 or v2: made, entered, limited, read, taken away. Needs root or a delegated group."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

V1 = Path("/sys/fs/cgroup/memory")
V2 = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


class NotPossible(Exception):
    """No memory cgroup can be made here; says why."""


class MemoryGroup:
    """A context manager. Processes started inside `entered()` belong to the group from their first page on."""

    def __init__(self, limit_bytes: int) -> None:
        self._parent, self.version = _hierarchy()
        self.folder = self._parent / f"edged-test-{os.getpid()}-{time.monotonic_ns() % 10**6}"
        try:
            self.folder.mkdir()
            self.limit(limit_bytes)
        except OSError as error:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            raise NotPossible(f"{self.folder}: {error.strerror}") from error

    def __enter__(self) -> MemoryGroup:
        return self

    def __exit__(self, *_: object) -> None:
        for _ in range(100):  # the last process may still be on its way out
            with contextlib.suppress(OSError):
                self.folder.rmdir()
                return
            time.sleep(0.05)

    def limit(self, limit_bytes: int) -> None:
        """Raises OSError when the group uses more and the kernel cannot reclaim it (v1)."""
        name = "memory.limit_in_bytes" if self.version == 1 else "memory.max"
        (self.folder / name).write_text(str(limit_bytes))
        if self.version == 2:
            with contextlib.suppress(OSError):
                (self.folder / "memory.swap.max").write_text("0")

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This process and what it starts are in the group; afterwards this process is back where it was."""
        own = _own_group(self._parent, self.version)
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (own / "cgroup.procs").write_text(str(os.getpid()))

    def oom_kills(self) -> int:
        """Processes of the group that the kernel killed for memory."""
        name = "memory.oom_control" if self.version == 1 else "memory.events"
        return self._field(name, "oom_kill")

    def hits(self) -> int:
        """How often the limit was touched: v1 counts page cache that was reclaimed at once, too."""
        if self.version == 1:
            return int((self.folder / "memory.failcnt").read_text())
        return self._field("memory.events", "max")

    def used_bytes(self) -> int:
        """In use without what the kernel can drop, as edged counts it."""
        usage = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        prefix = "total_" if self.version == 1 else ""
        cache = sum(self._field("memory.stat", f"{prefix}{kind}_file") for kind in ("inactive", "active"))
        return int((self.folder / usage).read_text()) - cache

    def _field(self, file: str, name: str) -> int:
        for line in (self.folder / file).read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
        return 0


def _hierarchy() -> tuple[Path, int]:
    if (V1 / "memory.limit_in_bytes").exists():
        if not os.access(V1, os.W_OK):
            raise NotPossible(f"{V1}: not writable for this user")
        return V1, 1
    for top in V2:
        controllers = top / "cgroup.controllers"
        if controllers.exists() and "memory" in controllers.read_text().split():
            with contextlib.suppress(OSError):
                (top / "cgroup.subtree_control").write_text("+memory")
            if "memory" in (top / "cgroup.subtree_control").read_text().split() and os.access(top, os.W_OK):
                return top, 2
            raise NotPossible(f"{top}: the memory controller is not delegated to this user")
    raise NotPossible("this kernel shows no memory cgroup")


def _own_group(top: Path, version: int) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if ("memory" in controllers.split(",")) if version == 1 else not controllers:
            return top / group.lstrip("/")
    return top
