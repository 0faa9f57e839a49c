"""Memory cgroups of this process: limit and use of every visible ancestor, v1 and v2.

Used memory leaves out the page cache that the kernel drops when asked (the file LRU lists). Shared memory and tmpfs
stay counted: their pages live on the anonymous lists and cannot be dropped. Locked pages stay counted too.
Sources: Linux Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edged.hardware.files import parse_int
from edged.hardware.tree import Tree

V1_UNLIMITED_BYTES = 1 << 42
"""v1 writes "no limit" as the largest page count: about 2⁶³ on 64-bit kernels, 2⁴³ on 32-bit ones."""


@dataclass(frozen=True)
class CgroupMemory:
    """One ancestor that sets a limit (bytes). `used_bytes` is without reclaimable page cache."""

    path: str
    version: int
    limit_bytes: int
    used_bytes: int

    @property
    def headroom_bytes(self) -> int:
        """What may still be taken here before the kernel reclaims hard or kills; never below zero."""
        return max(0, self.limit_bytes - self.used_bytes)


@dataclass(frozen=True)
class _Hierarchy:
    """Where a cgroup hierarchy is mounted, and our own group below that ("." when it is the mount point)."""

    version: int
    top: str
    own: str

    def upwards(self) -> Iterator[str]:
        """Our own group, its parent, and so on to the mount point."""
        folder = posixpath.normpath(posixpath.join(self.top, self.own))
        while folder != self.top:
            yield folder
            folder = posixpath.dirname(folder)
        yield self.top


def memory_cgroups(root: Path | Tree = Path("/")) -> tuple[tuple[CgroupMemory, ...], tuple[str, ...]]:
    """The limits that bind this process, its own group first, and the files that made no sense."""
    tree, problems = Tree.of(root), list[str]()
    found = [
        level
        for hierarchy in _hierarchies(tree)
        for folder in hierarchy.upwards()
        if (level := (_read_v1 if hierarchy.version == 1 else _read_v2)(tree, folder, problems))
    ]
    return tuple(found), tuple(problems)


def own_groups(root: Path | Tree = Path("/")) -> list[str]:
    """The folders of this process's own groups (memory v1, v2), as far as they are visible; for PSI."""
    return [next(hierarchy.upwards()) for hierarchy in _hierarchies(Tree.of(root))]


def _hierarchies(tree: Tree) -> list[_Hierarchy]:
    """The v1 memory controller's hierarchy and v2's, whichever exist (cgroups(7), /proc/PID/cgroup)."""
    mounts = _mounts(tree)
    found = []
    for line in tree.text("proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        version = 2 if not controllers else 1 if "memory" in controllers.split(",") else 0
        if not version or not group.startswith("/"):
            continue
        fallback = "sys/fs/cgroup/memory" if version == 1 else "sys/fs/cgroup"
        mount_root, top = mounts.get(version, ("/", fallback))
        # In a container without a cgroup namespace the mount shows only the part below mount_root; a group outside
        # our namespace is written with "..": then the mount point is as near as we can look.
        own = posixpath.relpath(group, mount_root)
        outside = ".." in group.split("/") or own.startswith("..") or not tree.exists(posixpath.join(top, own))
        found.append(_Hierarchy(version, top, "." if outside else own))
    return found


def _mounts(tree: Tree) -> dict[int, tuple[str, str]]:
    """version → (root of the mount inside the hierarchy, mount point), from /proc/self/mountinfo (proc(5))."""
    found: dict[int, tuple[str, str]] = {}
    for line in tree.text("proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            found.setdefault(2, (fields[3], fields[4].strip("/")))
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found.setdefault(1, (fields[3], fields[4].strip("/")))
    return found


def _read_v2(tree: Tree, folder: str, problems: list[str]) -> CgroupMemory | None:
    # Above memory.high the kernel stalls the group in reclaim: for us as good as the end.
    limits = [_limit(tree, f"{folder}/{name}", problems) for name in ("memory.max", "memory.high")]
    stat = _stat(tree, folder)
    cache_bytes = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    return _level(tree, folder, 2, limits, "memory.current", cache_bytes, problems)


def _read_v1(tree: Tree, folder: str, problems: list[str]) -> CgroupMemory | None:
    stat = _stat(tree, folder)
    # hierarchical_memory_limit also knows ancestors that a container cannot see.
    limits = [_limit(tree, f"{folder}/memory.limit_in_bytes", problems), stat.get("hierarchical_memory_limit")]
    limits = [limit for limit in limits if limit is not None and 0 <= limit < V1_UNLIMITED_BYTES]
    cache_bytes = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
    return _level(tree, folder, 1, limits, "memory.usage_in_bytes", cache_bytes, problems)


def _level(
    tree: Tree,
    folder: str,
    version: int,
    limits: list[int | None],
    usage_file: str,
    cache_bytes: int,
    problems: list[str],
) -> CgroupMemory | None:
    known = [limit for limit in limits if limit is not None]
    if not known:
        return None
    usage_bytes = tree.number(f"{folder}/{usage_file}")
    if usage_bytes is None or usage_bytes < 0:
        problems.append(f"/{folder}/{usage_file}: no number; the whole limit is taken as free")
        usage_bytes = 0
    return CgroupMemory(f"/{folder}", version, min(known), max(0, usage_bytes - cache_bytes))


def _limit(tree: Tree, path: str, problems: list[str]) -> int | None:
    """A limit in bytes; None when absent, unlimited or garbage (the last is told)."""
    text = tree.text(path)
    if text in ("max", "-1") or not tree.exists(path):
        return None
    value = parse_int(text)
    if value is None or value < 0:
        problems.append(f"/{path}: {text[:40]!r} is no limit; ignored")
        return None
    return value


def _stat(tree: Tree, folder: str) -> dict[str, int]:
    pairs = (line.split() for line in tree.text(f"{folder}/memory.stat").splitlines())
    return {pair[0]: value for pair in pairs if len(pair) == 2 and (value := parse_int(pair[1])) is not None}
