"""Where an installed version came from, and the SHA-256 of each of its files, kept beside it.

Owns `STATE/models/<name>/.origin/<version>.json`. A version that came with an update has none: its bundle is signed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edged.store.digests import FileDigest
from edged.store.durable import make_folder, write_file
from edged.store.slot_view import SlotView

ORIGIN = ".origin"


@dataclass(frozen=True, slots=True)
class Origin:
    """`source` is "hub" or "folder", `what` names it for people, `at_s` is wall-clock time."""

    source: str
    what: str
    at_s: int
    variant: str = ""
    files: dict[str, FileDigest] = field(default_factory=dict)


def read_origin(slots: SlotView, version: str) -> Origin | None:
    """What is known of a version's coming; None when nothing is, or its file cannot be read."""
    try:
        raw: dict[str, Any] = json.loads(_path(slots, version).read_bytes())
        raw["files"] = {file: FileDigest(**digest) for file, digest in raw["files"].items()}
        return Origin(**raw)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_origin(slots: SlotView, version: str, origin: Origin) -> None:
    """Raises OSError."""
    make_folder(slots.folder / ORIGIN)
    write_file(_path(slots, version), json.dumps(asdict(origin), indent=1).encode())


def drop_origins(slots: SlotView) -> None:
    """Forgets the versions that are gone. Raises OSError."""
    for path in (slots.folder / ORIGIN).glob("*.json"):
        if path.stem not in slots.versions():
            path.unlink()


def _path(slots: SlotView, version: str) -> Path:
    return slots.folder / ORIGIN / f"{slots.path(version).name}.json"
