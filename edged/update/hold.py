"""The hold switch: while it is set nothing is downloaded, staged or activated, and nothing is forgotten.

Owns `STATE/update/hold.json`. A switch that cannot be read counts as set.
"""

from __future__ import annotations

import json
from pathlib import Path

from edged.store.durable import make_folder, sync_folder, write_file

FILE = "hold.json"
MAX_REASON = 200


def held(folder: Path) -> str:
    """Why updates are held; empty when they are not."""
    try:
        value = json.loads((folder / FILE).read_bytes())
    except FileNotFoundError:
        return ""
    except (OSError, ValueError):
        return "the hold switch cannot be read"
    reason = value.get("reason") if isinstance(value, dict) else None
    return reason if isinstance(reason, str) and reason else "no reason given"


def hold(folder: Path, reason: str) -> None:
    """Sets the switch. Raises OSError."""
    make_folder(folder)
    write_file(folder / FILE, json.dumps({"reason": reason[:MAX_REASON] or "by hand"}).encode())


def release(folder: Path) -> None:
    """Takes the switch back. Raises OSError."""
    if (folder / FILE).exists():
        (folder / FILE).unlink()
        sync_folder(folder)
