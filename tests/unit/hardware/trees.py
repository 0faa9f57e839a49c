"""Small trees of /proc and /sys, written to disk for one test each."""

from __future__ import annotations

from pathlib import Path

V1_UNLIMITED = "9223372036854771712"


def plant(root: Path, files: dict[str, str]) -> Path:
    """Writes `files` (path below root → text) and returns the root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def meminfo(total_kib: int, available_kib: int, *, swap_kib: int = 0) -> str:
    return (
        f"MemTotal:       {total_kib} kB\nMemFree:        {available_kib // 2} kB\n"
        f"MemAvailable:   {available_kib} kB\nBuffers:          100 kB\n"
        f"SwapTotal:      {swap_kib} kB\nSwapFree:       {swap_kib} kB\nHugePages_Total:       0\n"
    )


def cgroup2_mount(at: str = "/sys/fs/cgroup", mount_root: str = "/") -> str:
    return f"31 23 0:26 {mount_root} {at} rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def cgroup1_mount(at: str = "/sys/fs/cgroup/memory", mount_root: str = "/") -> str:
    return f"35 31 0:32 {mount_root} {at} rw,relatime shared:11 - cgroup cgroup rw,memory\n"


def v2_group(path: str, *, limit: str = "max", high: str = "max", current: int = 0, stat: str = "") -> dict[str, str]:
    base = f"sys/fs/cgroup/{path}/" if path else "sys/fs/cgroup/"
    return {
        base + "memory.max": limit + "\n",
        base + "memory.high": high + "\n",
        base + "memory.current": f"{current}\n",
        base + "memory.stat": stat,
    }


def v1_group(path: str, *, limit: str = V1_UNLIMITED, usage: int = 0, stat: str = "") -> dict[str, str]:
    base = f"sys/fs/cgroup/memory/{path}/" if path else "sys/fs/cgroup/memory/"
    return {
        base + "memory.limit_in_bytes": limit + "\n",
        base + "memory.usage_in_bytes": f"{usage}\n",
        base + "memory.stat": stat,
    }
