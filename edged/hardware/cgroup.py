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

from edged.hardware.files import parse_int, read_text

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


def memory_cgroups(root: Path = Path("/")) -> tuple[tuple[CgroupMemory, ...], tuple[str, ...]]:
    """The limits that bind this process, its own group first, and the files that made no sense."""
    found: list[CgroupMemory] = []
    problems: list[str] = []
    for version, top, own in _hierarchies(root):
        for folder in _upwards(top, own):
            level = (_read_v1 if version == 1 else _read_v2)(root, folder, problems)
            if level:
                found.append(level)
    return tuple(found), tuple(problems)


def cgroup_dirs(root: Path = Path("/")) -> list[Path]:
    """The folders of this process's own groups (memory v1, v2), where they are visible; for PSI."""
    return [top / own for _, top, own in _hierarchies(root)]


def _hierarchies(root: Path) -> list[tuple[int, Path, str]]:
    """(version, mount point, path of our group below it) for the v1 memory controller and for v2."""
    mounts = _mounts(root)
    found = []
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not group.startswith("/"):
            continue
        if "memory" in controllers.split(","):
            version = 1
        elif not controllers:
            version = 2
        else:
            continue
        mount_root, mount = mounts.get(version, ("/", "/sys/fs/cgroup/memory" if version == 1 else "/sys/fs/cgroup"))
        top = root / mount.lstrip("/")
        # In a container without a cgroup namespace the mount shows only the part below mount_root; a group outside
        # our namespace is written with "..": then the mount point is as near as we can look.
        own = posixpath.relpath(group, mount_root)
        outside = ".." in group.split("/") or own.startswith("..") or not (top / own).is_dir()
        found.append((version, top, "." if outside else own))
    return found


def _mounts(root: Path) -> dict[int, tuple[str, str]]:
    """version → (root of the mount inside the hierarchy, mount point), from /proc/self/mountinfo (proc(5))."""
    found: dict[int, tuple[str, str]] = {}
    for line in (read_text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        if kind[0] == "cgroup2":
            found.setdefault(2, (fields[3], fields[4]))
        elif kind[0] == "cgroup" and "memory" in kind[2].split(","):
            found.setdefault(1, (fields[3], fields[4]))
    return found


def _upwards(top: Path, own: str) -> Iterator[Path]:
    folder = top / own
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _read_v2(root: Path, folder: Path, problems: list[str]) -> CgroupMemory | None:
    # Above memory.high the kernel stalls the group in reclaim: for us as good as the end.
    limits = [
        value for name in ("memory.max", "memory.high") if (value := _limit(root, folder / name, problems)) is not None
    ]
    if not limits:
        return None
    stat = _stat(folder)
    cache = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    return _level(root, folder, 2, min(limits), "memory.current", cache, problems)


def _read_v1(root: Path, folder: Path, problems: list[str]) -> CgroupMemory | None:
    stat = _stat(folder)
    # hierarchical_memory_limit also knows ancestors that a container cannot see.
    limits = [
        value
        for value in (
            _limit(root, folder / "memory.limit_in_bytes", problems),
            stat.get("hierarchical_memory_limit"),
        )
        if value is not None and 0 <= value < V1_UNLIMITED_BYTES
    ]
    if not limits:
        return None
    cache = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
    return _level(root, folder, 1, min(limits), "memory.usage_in_bytes", cache, problems)


def _level(
    root: Path, folder: Path, version: int, limit_bytes: int, usage_file: str, cache_bytes: int, problems: list[str]
) -> CgroupMemory:
    usage = parse_int(read_text(folder / usage_file))
    if usage is None or usage < 0:
        problems.append(f"{_shown(root, folder / usage_file)}: no number; the whole limit is taken as free")
        usage = 0
    return CgroupMemory(_shown(root, folder), version, limit_bytes, max(0, usage - cache_bytes))


def _limit(root: Path, path: Path, problems: list[str]) -> int | None:
    """A limit in bytes; None when absent, unlimited or garbage (the last is told)."""
    text = read_text(path)
    if text in (None, "max", "-1"):
        return None
    value = parse_int(text)
    if value is None or value < 0:
        problems.append(f"{_shown(root, path)}: {str(text)[:40]!r} is no limit; ignored")
        return None
    return value


def _stat(folder: Path) -> dict[str, int]:
    pairs = (line.split() for line in (read_text(folder / "memory.stat") or "").splitlines())
    return {pair[0]: value for pair in pairs if len(pair) == 2 and (value := parse_int(pair[1])) is not None}


def _shown(root: Path, path: Path) -> str:
    return "/" + path.relative_to(root).as_posix()
