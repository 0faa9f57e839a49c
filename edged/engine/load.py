"""From a model folder to a backend that has answered: check, refuse what cannot fit, load, warm up, measure."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edged.engine.announced import AnnouncedBackend
from edged.engine.fallback import open_on_best
from edged.engine.memory import EngineMemory, MemoryPolicy
from edged.engine.neighbours import Neighbours, anonymous_bytes
from edged.engine.options import EngineOptions
from edged.engine.pace import Pace
from edged.errors import ModelError
from edged.hardware.selection import Selection
from edged.protocol.pulse import PulseWriter
from edged.protocol.shared_ledger import SharedLedger
from edged.store.manifest import ModelManifest, read_manifest
from edged.store.models import installed

if TYPE_CHECKING:
    from edged.engine.backends.genai import GenaiBackend

CARD_PROVIDERS = frozenset({"cuda", "tensorrt-rtx"})  # weights and KV in the card's own memory, or a Jetson's one pool
WARM_UP_TOKENS = 16
WARM_UP_STEPS = 4
TINY_READ = 2  # tokens: what a pass costs


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to serve."""

    backend: AnnouncedBackend
    pace: Pace
    memory: EngineMemory
    strips_first_space: bool
    load_s: float
    selection: Selection


def load(options: EngineOptions, pulse: PulseWriter, tell: Callable[..., None]) -> Loaded:
    """Load the model named in `options`. Raises ModelError, also when its weights do not fit into memory."""
    started_s = time.monotonic()
    folder = Path(options.folder)
    tell("checking the model's files")
    manifest = read_manifest(folder)
    if not manifest.has_chat_template:
        raise ModelError(folder, "chat_template.jinja", "missing; the model's chat format is not known without it")
    context = min(manifest.max_tokens, options.max_context or manifest.max_tokens)
    memory = make_memory(options, options.kv_memory_bytes)
    memory.check_room(manifest, _others(folder, Path(options.state_dir)))
    tell(f"loading {manifest.weights_bytes / 1e6:.0f} MB of weights")
    pulse.beat(options.load_timeout_s)

    def open_on(selection: Selection) -> Loaded:
        native = _open(manifest, options.name, context, selection)
        if options.ignore_eos:
            native.info = replace(native.info, eos_token_ids=frozenset())
        pace = Pace(options.prefill_slice_ms / 1000, options.prefill_alone_ms / 1000)
        backend = AnnouncedBackend(native, pulse, pace)
        tell("asking it a first question")
        activation_bytes = _warm_up(backend, pace)
        if native.info.most_crops:
            tell("showing it a first picture")
            activation_bytes = max(activation_bytes, _first_sight(backend, pace))
        memory.loaded(activation_bytes, on_card=selection.got.key in CARD_PROVIDERS)
        return Loaded(backend, pace, memory, native.strips_first_space, time.monotonic() - started_s, selection)

    return open_on_best(options, tell, open_on)[0]


def _open(manifest: ModelManifest, name: str, context_tokens: int, selection: Selection) -> GenaiBackend:
    """The backend for this kind of model. The native libraries: not before the folder was checked."""
    if manifest.kind == "vision-language":
        from edged.engine.backends.genai_vision import GenaiVisionBackend

        kind: type[GenaiBackend] = GenaiVisionBackend
    else:
        from edged.engine.backends.genai import GenaiBackend

        kind = GenaiBackend
    return kind(manifest.folder, manifest, name, context_tokens, selection.got, selection.setting)


def _others(folder: Path, state: Path) -> list[ModelManifest]:
    """The other installed models, to name one that would fit."""
    found = []
    for model in installed(state):
        if model.folder != folder:
            with contextlib.suppress(ModelError):
                found.append(read_manifest(model.folder))
    return found


def make_memory(options: EngineOptions, ceiling_bytes: int = 0) -> EngineMemory:
    """This engine's budget, beside what the other engines of the box have promised; 0 means no ceiling."""
    return EngineMemory(
        MemoryPolicy(ceiling_bytes, options.memory_reserve_bytes, options.memory_reserve_fraction),
        Neighbours(SharedLedger(options.ledger_fd) if options.ledger_fd >= 0 else None, options.ledger_row),
    )


def _warm_up(backend: AnnouncedBackend, pace: Pace) -> int:
    """The canary: the model itself must read and answer. It also gives the first measurements of its pace.

    Returns the activation peak (bytes) to expect while the longest slice of today's pace is read: what the warm-up took
    beside weights and KV, in proportion to its tokens.
    """
    before_bytes = anonymous_bytes()
    tokens = backend.encode_chat([{"role": "user", "content": "Hello! Which sensor is the warmest now?"}])
    slot = backend.open_slot((WARM_UP_TOKENS + TINY_READ) * 2 + WARM_UP_STEPS)
    tokens = (tokens * WARM_UP_TOKENS)[:WARM_UP_TOKENS]
    backend.prefill(slot, tokens)  # the first call also pays for what is made lazily: it is not a measurement
    backend.forget_pace()
    backend.prefill(slot, tokens)
    for _ in range(2):
        backend.prefill(slot, tokens[:TINY_READ])
    for _ in range(WARM_UP_STEPS):
        backend.step([slot])
    backend.close_slot(slot)
    kept_bytes = max(0, anonymous_bytes() - before_bytes)  # the library's arena keeps what a slice took
    return kept_bytes * pace.slice_tokens(alone=True) // WARM_UP_TOKENS


def _first_sight(backend: AnnouncedBackend, pace: Pace) -> int:
    """A blank picture, looked at twice: the second time is the first measurement of its pace.

    Returns the activation peak (bytes) to expect for the most squares the model looks at.
    """
    from edged.engine.images.crops import Grid, blank
    from edged.engine.images.pictures import Picture

    before_bytes = anonymous_bytes()
    picture = Picture(-1, blank(), Grid(1, 1))
    tokens = backend.encode_chat([{"role": "user", "content": [picture, "What is this?"]}])
    for _ in range(2):
        pace.forget_sight()
        slot = backend.open_slot(len(tokens) + 1)
        backend.see(slot, tokens, [picture], lambda: False)
        backend.close_slot(slot)
    kept_bytes = max(0, anonymous_bytes() - before_bytes)
    return kept_bytes * (backend.info.most_crops + 1) // 2
