"""What the owner says of updates: `/etc/edged/update.toml`; and what this box is, as the updater wants to know it.

A file of its own: the daemon, which has no network, needs none of it, and fleet tools may write it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edged import __version__
from edged.config import Settings
from edged.errors import ConfigError

SYSTEM_FILE = Path("/etc/edged/update.toml")
ROOT_FILE = Path("/etc/edged/root.json")
MACHINE_ID = Path("/etc/machine-id")


class UpdateFile(BaseModel):
    """`source`: URL or folder of the repository; empty: no updates. `device_id` empty: made from the machine's."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    source: str = ""
    root_file: Path = ROOT_FILE
    model: str = ""
    device_id: str = ""
    groups: tuple[str, ...] = ()
    window: str = ""
    only_on_mains: bool = False
    only_when_cool: bool = False
    only_when_idle: bool = False
    most_bytes_per_s: Annotated[int, Field(ge=0)] = 0
    least_bytes_per_s: Annotated[int, Field(ge=0)] = 1024
    quota_bytes: Annotated[int, Field(ge=0)] = 0
    reserve_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


def read_update_file(file: Path | None) -> UpdateFile:
    """The file, or the defaults where there is none. Raises ConfigError naming file and key."""
    path = file or Path(os.environ.get("EDGED_UPDATE_CONFIG") or SYSTEM_FILE)
    if file is None and not path.exists():
        return UpdateFile()
    try:
        return UpdateFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def run_settings(file: UpdateFile, settings: Settings, *, action: str, by_hand: bool) -> dict[str, Any]:
    """What the updater process is told, as a map for JSON. Raises ConfigError when no source is set."""
    from edged.store.models import embedded_folder

    if not file.source:
        raise ConfigError(f'no source of updates is set: write `source = "https://..."` into {SYSTEM_FILE}')
    model = file.model or (settings.model if "/" not in settings.model else "nano")
    own = file.model_dump(mode="json", exclude={"model", "device_id"})
    return {
        **own,
        "action": action,
        "by_hand": by_hand,
        "state_dir": str(settings.state_path),
        "model": model,
        "device_id": file.device_id or device_id(),
        "edged": __version__,
        "shipped": [str(embedded_folder() / model)],
        **_box(settings.state_path),
    }


def device_id() -> str:
    """Stable for this installation and no use to anybody who wants the machine's own id."""
    try:
        machine = MACHINE_ID.read_text().strip()
    except OSError:
        machine = platform.node()
    return hashlib.sha256(f"edged-device/1 {machine}".encode()).hexdigest()[:32]


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
        "is_idle": None,
    }
