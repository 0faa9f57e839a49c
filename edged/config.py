"""Settings: frozen, every ceiling named. Order of precedence: flags, environment (`EDGED_*`), file, defaults.

Sizes are bytes, times seconds unless the name says `_ms`. 0 means "decide from the machine or the model" where the
description says so.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from edged.errors import ConfigError

SYSTEM_FILE = Path("/etc/edged/edged.toml")
ENV_PREFIX = "EDGED_"

Bytes = Annotated[int, Field(ge=0, le=2**50)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Everything an owner can set."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", frozen=True, validate_default=False, env_ignore_empty=True
    )

    # where things are
    endpoint: str = Field("", description="ZeroMQ endpoint clients use; empty: the user's or the system's socket")
    tcp_endpoint: str = Field("", description="also listen there, e.g. tcp://0.0.0.0:5577, for clients with a key")
    state_dir: str = Field("", description="models and remembered measurements; empty: the user's or the system's")
    model: str = Field("nano", description="name of an installed model, or the path of a model folder")

    # who may do what
    access: dict[str, list[str]] = Field(
        {}, description='rights (chat, infer, admin) by user, "@group" or "*"; empty: all may ask, root is admin'
    )

    # what one client may do
    max_header_bytes: Annotated[int, Field(ge=1024, le=16 * 2**20)] = 256 * 1024
    max_frames: Annotated[int, Field(ge=1, le=256)] = 16
    max_frame_bytes: Bytes = 32 * 2**20
    max_message_bytes: Bytes = 64 * 2**20
    max_pending_bytes: Bytes = Field(
        256 * 2**20, description="attachments of all live requests together, and again of all unread replies"
    )
    max_unread_bytes: Bytes = Field(128 * 2**20, description="attachments of replies that one client leaves unread")
    max_clients: Count = 2048
    max_requests: Count = 1024
    max_requests_per_client: Count = 64
    front_memory_bytes: Annotated[int, Field(ge=96 * 2**20, le=2**50)] = Field(
        192 * 2**20, description="of the front process beside attachments; above it connections are cut"
    )
    outbox_bytes: Annotated[int, Field(ge=4096, le=2**30)] = 256 * 1024
    slow_consumer_s: Annotated[float, Field(gt=0, le=3600)] = 10.0

    # what one user may take; root and the daemon's own user keep their priority
    max_requests_per_uid: Annotated[int, Field(ge=0, le=1_000_000)] = Field(0, description="live requests; 0: no limit")
    tokens_per_minute_per_uid: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        0, description="tokens read and written; 0: no limit"
    )
    kv_share_per_uid: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="part of the KV memory")
    max_priority: Annotated[int, Field(ge=0, le=9)] = 9

    # the engine
    provider: str = Field("auto", description="execution provider: auto or a name from `edged probe`")
    strict_provider: bool = Field(False, description="refuse to start rather than run on another provider")
    measure_at_load: bool = Field(
        False, description="measure the providers for a model at its first load, where several work"
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(0, description="intra-op threads; 0: decided by the runtime")
    max_context: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(0, description="tokens; 0: the model's safe limit")
    default_max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1024
    max_queue: Count = 256
    max_queue_per_client: Count = 64
    max_running: Annotated[int, Field(ge=1, le=256)] = Field(16, description="requests stepped in turn")
    prefill_slice_ms: Annotated[int, Field(ge=10, le=10_000)] = Field(
        350, description="longest turn at reading a prompt while others run"
    )
    prefill_alone_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        4000, description="about the same for a request that runs alone, until another comes"
    )
    stream_interval_ms: Annotated[int, Field(ge=0, le=1000)] = 10
    load_timeout_s: Annotated[float, Field(ge=1, le=86_400)] = 600.0
    ignore_eos: bool = Field(False, description="go on after the model's end of text; for measuring only")
    max_image_pixels: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(16 * 2**20, description="of one image")
    max_image_bytes: Bytes = Field(144 * 2**20, description="memory that decoding one image may take")
    image_decode_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    abandoned_call_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        10.0,
        description="pictures nobody wants are read on for so long while others wait, then the engine ends; 0: never",
    )
    hang_factor: Annotated[float, Field(ge=1, le=100)] = 3.0
    hang_floor_s: Annotated[float, Field(ge=1, le=3600)] = 10.0

    # memory
    kv_memory_bytes: Bytes = Field(0, description="ceiling of KV memory; 0: what the machine can spare")
    memory_reserve_bytes: Bytes = 512 * 2**20
    memory_reserve_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.10
    session_idle_s: Seconds = 600.0
    session_reread: bool = Field(
        True, description="while idle, read a session's last answer as its next turn would have to"
    )
    prefix_idle_s: Seconds = Field(120.0, description="how long KV without a session is kept for a shared beginning")
    model_idle_s: Seconds = Field(0.0, description="unload the model when idle this long; 0: keep it loaded")
    max_sessions: Count = 256
    preload: list[str] = Field([], description="installed models to load at the start, beside `model`")
    max_loaded_models: Annotated[int, Field(ge=1, le=32)] = 4
    load_for_request: bool = Field(True, description="a request may load an installed model")
    evict_for_request: bool = Field(True, description="and unload the least recently used idle one for it")

    # models on disk; the daemon itself fetches nothing
    models_disk_bytes: Bytes = Field(0, description="most disk that models in the store may take; 0: no limit")
    disk_reserve_bytes: Bytes = Field(512 * 2**20, description="disk that a new model leaves free")
    pull_bytes_per_s: Bytes = Field(0, description="most that `edged pull` reads per second; 0: no limit")

    # updates of installed models: what a new version must keep to on this box
    follow_updates: bool = Field(True, description="test and take over the versions that the updater stages")
    update_answer_s: Annotated[float, Field(gt=0, le=3600)] = Field(120.0, description="for one golden prompt")
    update_least_speed: Annotated[float, Field(gt=0, le=10)] = Field(0.7, description="share of the old version's pace")
    update_watch_s: Seconds = Field(300.0, description="watched at least this long after the change, and until")
    update_watch_requests: Annotated[int, Field(ge=0, le=1_000_000)] = Field(20, description="so many were answered")
    update_watch_most_s: Seconds = Field(3600.0, description="but no longer than this")
    update_drain_s: Seconds = Field(600.0, description="for running answers, when two models do not fit into memory")

    # life
    drain_s: Seconds = 30.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @property
    def state_path(self) -> Path:
        """The state directory: as set, else systemd's, else the system's for root and XDG's for everyone else."""
        if self.state_dir:
            return Path(self.state_dir).expanduser()
        from_systemd = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
        if from_systemd or os.getuid() == 0:
            return Path(from_systemd or "/var/lib/edged")
        return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "edged"

    @property
    def keys_path(self) -> Path:
        """Where the keys for TCP are."""
        return self.state_path / "keys"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` merges file, environment and flags itself, to remember where each came from


def load(flags: dict[str, Any] | None = None, file: Path | None = None) -> tuple[Settings, dict[str, str]]:
    """The effective settings, and for each name where its value came from.

    Raises ConfigError naming the file, variable or flag, the key, and the line where the parser knows it.
    """
    values: dict[str, Any] = {}
    origin = dict.fromkeys(Settings.model_fields, "default")
    path = file or Path(os.environ.get("EDGED_CONFIG") or SYSTEM_FILE)
    if file is not None or path.exists():
        for key, value in _read_file(path).items():
            values[key], origin[key] = value, str(path)
    for key, value in EnvSettingsSource(Settings)().items():
        values[key], origin[key] = value, f"environment {ENV_PREFIX}{key.upper()}"
    for key, value in (flags or {}).items():
        if value is not None:
            values[key], origin[key] = value, f"flag --{key.replace('_', '-')}"
    try:
        return Settings(**values), origin
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = str(first["loc"][0]) if first["loc"] else ""
        where = origin.get(key, str(path))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: {key}: no such setting; `edged config show` lists them") from None
        raise ConfigError(f"{where}: {key}: {first['msg']} (got {first.get('input')!r})") from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
