"""Is there room on the disk for one more model: the space itself, and the owner's quota."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from edged.store.digests import is_name
from edged.store.durable import StoreError
from edged.store.notes import read_notes
from edged.store.slot_files import used_bytes


def sizes(state: Path) -> Mapping[str, int]:
    """Bytes on disk of every model in the store, whatever lies there of it."""
    models = state / "models"
    folders = sorted(path for path in models.iterdir() if path.is_dir()) if models.is_dir() else []
    return {path.name: used_bytes(path) for path in folders if is_name(path.name)}


def free_bytes(state: Path) -> int:
    """Free to us on the file system that holds `state`, or will. Raises OSError."""
    place = next(folder for folder in (state / "models", *(state / "models").parents) if folder.is_dir())
    return shutil.disk_usage(place).free


def check_room(state: Path, need_bytes: int, *, quota_bytes: int, reserve_bytes: int) -> None:
    """Whether `need_bytes` more may be put into the store. Raises StoreError: what is missing, and what could go."""
    free = free_bytes(state)
    if need_bytes + reserve_bytes > free:
        raise StoreError(
            f"the disk is too full: {size(need_bytes)} are needed and {size(reserve_bytes)} stay free "
            f"(disk_reserve_bytes), but only {size(free)} are free. {_could_go(state)}"
        )
    used = sum(sizes(state).values())
    if quota_bytes and used + need_bytes > quota_bytes:
        raise StoreError(
            f"models may take {size(quota_bytes)} of disk (models_disk_bytes); they take {size(used)} and this one "
            f"needs {size(need_bytes)}. {_could_go(state)}"
        )


def size(count_bytes: float) -> str:
    """As disks and hubs count: 10^6 and 10^9 bytes."""
    return f"{count_bytes / 1e9:.2f} GB" if count_bytes >= 1e9 else f"{count_bytes / 1e6:.1f} MB"


def _could_go(state: Path) -> str:
    pinned = read_notes(state).pinned
    found = sorted(((held, name) for name, held in sizes(state).items() if name not in pinned and held), reverse=True)
    if not found:
        return "No model can be removed for it: free space in another way"
    return "`edged remove NAME` frees space: " + ", ".join(f"{name} ({size(held)})" for held, name in found[:5])
