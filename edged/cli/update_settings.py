"""What the updater process is told: the owner's file, and what this box is."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edged import __version__
from edged.config import Settings
from edged.errors import ConfigError
from edged.update.owner_file import SYSTEM_FILE, UpdateFile, device_id, model_of
from edged.update.wish import Wish


def run_settings(
    file: UpdateFile, settings: Settings, *, wish: Wish, by_hand: bool, is_idle: bool | None = None
) -> dict[str, Any]:
    """What the updater process is told, as a map for JSON. Raises ConfigError without a source or python-tuf."""
    from edged.store.models import embedded_folder

    if find_spec("tuf") is None:
        raise ConfigError("updates need one more package: pip install 'edged[update]'")
    if not file.source:
        raise ConfigError(f'no source of updates is set: write `source = "https://..."` into {SYSTEM_FILE}')
    model = wish.model or model_of(file, settings.model)
    own = file.model_dump(mode="json", exclude={"model", "device_id"})
    return {
        **own,
        "action": wish.action,
        "asked": wish.id,
        "by_hand": by_hand,
        "is_idle": is_idle,
        "state_dir": str(settings.state_path),
        "model": model,
        "device_id": file.device_id or device_id(),
        "edged": __version__,
        "shipped": [str(embedded_folder() / model)],
        **_box(settings.state_path),
    }


def _box(state: Path) -> dict[str, Any]:
    """Read from files only. Not the memory limit of this process: the engine has another one."""
    from edged.hardware.fingerprint import fingerprint, package_versions
    from edged.hardware.packages import installed
    from edged.hardware.probe import probe
    from edged.hardware.provider_cache import recall_reports

    report = probe(disk_path=state)
    tried = recall_reports(state, fingerprint(report, package_versions(installed())))
    on_battery = report.power.on_battery
    return {
        "architecture": platform.machine(),
        "memory_bytes": report.memory.total_bytes,
        "providers": None if tried is None else [one.candidate.key for one in tried if one.usable],
        "on_mains": None if on_battery is None else not on_battery,
        "is_cool": not report.thermal.throttling.now,
    }
