"""What the owner says of updates: `/etc/edged/update.toml`. A file of its own, which fleet tools may write."""

from __future__ import annotations

import hashlib
import os
import platform
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


def model_of(file: UpdateFile, served: str) -> str:
    """The model whose updates are looked for: the one the owner names, else the one that is `served` by its name."""
    return file.model or (served if "/" not in served else "nano")


def device_id() -> str:
    """Stable for this installation and no use to anybody who wants the machine's own id."""
    try:
        machine = MACHINE_ID.read_text().strip()
    except OSError:
        machine = platform.node()
    return hashlib.sha256(f"edged-device/1 {machine}".encode()).hexdigest()[:32]
