"""What an updater run is told, as JSON on standard input: by the command line or the service, never by a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edged.errors import ConfigError
from edged.update.bundle import Name
from edged.update.pace import Rates
from edged.update.rollout import Box, Rules
from edged.update.window import Window

Bytes = Annotated[int, Field(ge=0, le=2**50)]


class UpdateSettings(BaseModel):
    """`action` `check` looks and decides, `apply` also downloads and stages. `source`: URL or folder of the repository.

    `root_file` is the installed root of trust; `shipped` are folders whose files may be copied instead of downloaded;
    `asked` names the wish that this run fulfils.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    action: Literal["check", "apply"] = "check"
    state_dir: Path
    source: Annotated[str, Field(min_length=1, max_length=2048)]
    root_file: Path
    model: Name
    by_hand: bool = False
    asked: Annotated[str, Field(max_length=64)] = ""

    device_id: Annotated[str, Field(min_length=1, max_length=128)]
    groups: tuple[str, ...] = ()
    edged: str
    architecture: str
    providers: tuple[str, ...] | None = None
    memory_bytes: Bytes | None = None
    on_mains: bool | None = None
    is_cool: bool | None = None
    is_idle: bool | None = None

    window: str = ""
    only_on_mains: bool = False
    only_when_cool: bool = False
    only_when_idle: bool = False

    most_bytes_per_s: Bytes = 0
    least_bytes_per_s: Bytes = 1024
    rate_window_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    whole_limit_s: Annotated[float, Field(gt=0, le=7 * 86_400)] = 6 * 3600.0
    quota_bytes: Bytes = 0
    reserve_bytes: Bytes = 256 * 2**20
    authorities: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    shipped: tuple[Path, ...] = ()

    @property
    def rates(self) -> Rates:
        return Rates(self.most_bytes_per_s, self.least_bytes_per_s, self.rate_window_s)

    def box(self) -> Box:
        return Box(
            device_id=self.device_id,
            groups=frozenset(self.groups),
            edged=self.edged,
            architecture=self.architecture,
            providers=None if self.providers is None else frozenset(self.providers),
            memory_bytes=self.memory_bytes,
            on_mains=self.on_mains,
            is_cool=self.is_cool,
            is_idle=self.is_idle,
        )

    def rules(self, hold: str) -> Rules:
        """What the owner allows; what is done by hand need not wait for window, power, heat or idleness."""
        if self.by_hand:
            return Rules(hold=hold)
        window = Window.parse(self.window) if self.window else None
        return Rules(hold, window, self.only_on_mains, self.only_when_cool, self.only_when_idle)


def read_settings(data: bytes) -> UpdateSettings:
    """Raises ConfigError naming the field."""
    try:
        return UpdateSettings.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise ConfigError(f"updater: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
