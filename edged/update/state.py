"""Where one model's updates stand, as one map from what lies on the disk. Reads, changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edged.store.journal import refused, uncommitted
from edged.store.slot_view import SlotView
from edged.update.hold import held
from edged.update.report import read_report
from edged.update.staged import next_staged

SCHEMA = 1


def update_state(state: Path, model: str, device: str) -> dict[str, Any]:
    """What `update status` shows. `testing` serves and is being watched; `staged` waits to be tested.

    Raises OSError when the store cannot be read.
    """
    slots = SlotView(state, model)
    entries = slots.journal.read()
    pending = uncommitted(entries)
    return {
        "schema": SCHEMA,
        "device": device,
        "model": model,
        "active": slots.active,
        "previous": slots.previous,
        "versions": list(slots.versions()),
        "testing": pending.version if pending is not None and pending.version == slots.active else None,
        "staged": next_staged(slots),
        "hold": held(state / "update"),
        "refused": {version: entry.reason for version, entry in refused(entries).items()},
        "last": asdict(read_report(state / "update")),
    }
