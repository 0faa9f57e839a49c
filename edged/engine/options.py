"""What the front tells a new engine: read once from standard input, as JSON. The engine's only settings."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edged.engine.images import ImageLimits


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Names as in config; `folder` is the model's, `name` what clients call it."""

    name: str
    folder: str
    state_dir: str
    provider: str
    strict_provider: bool
    threads: int
    max_context: int
    default_max_tokens: int
    max_queue: int
    max_queue_per_client: int
    max_running: int
    tokens_per_minute_per_uid: int
    kv_share_per_uid: float
    max_priority: int
    max_sessions: int
    session_idle_s: float
    session_reread: bool
    prefix_idle_s: float
    prefill_slice_ms: int
    prefill_alone_ms: int
    stream_interval_ms: int
    kv_memory_bytes: int
    memory_reserve_bytes: int
    memory_reserve_fraction: float
    load_timeout_s: float
    ignore_eos: bool
    log_level: str
    log_format: str
    ledger_fd: int = -1  # the shared ledger of memory, and this engine's row; -1: it is alone
    ledger_row: int = 0
    measure_at_load: bool = False
    blamed_provider: str = ""  # engines on it ended again and again, as the front saw
    blamed_reason: str = ""
    max_image_pixels: int = 16 * 2**20
    max_image_bytes: int = 144 * 2**20
    image_decode_s: float = 10.0
    abandoned_call_s: float = 0.0
    restarts: int = 0  # engines that ended before this one

    @property
    def image_limits(self) -> ImageLimits:
        """What one image may take."""
        from edged.engine.images import ImageLimits  # with Pillow behind it: not for a model of words

        return ImageLimits(self.max_image_pixels, self.max_image_bytes, self.image_decode_s)

    def to_map(self) -> dict[str, Any]:
        return asdict(self)


def read_options() -> EngineOptions:
    """Options from standard input. Raises ValueError or TypeError when they are not of this version."""
    return EngineOptions(**json.load(sys.stdin))
