"""What the engine needs of a native library: tokens in, tokens out, KV memory by the slot.

A backend steps a *set* of slots at once, so one that batches its forward pass, or that speculates and gets several
tokens from one, fits without touching the scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edged.engine.sampler import Picked, Sampler

if TYPE_CHECKING:
    from edged.engine.images.pictures import Picture  # its libraries are for engines that see


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model is. `context_tokens` is the most that prompt and answer may have together.

    `most_crops` is into how many squares it looks at a picture at most; 0: it takes no pictures.
    """

    name: str
    type: str
    context_tokens: int
    vocab_size: int
    eos_token_ids: frozenset[int]
    kv_bytes_per_token: int
    weights_bytes: int
    can_rewind: bool
    provider: str
    most_crops: int = 0


class Interrupted(Exception):
    """A native call was ended early, as asked. Its slot is as before; of no use if the model cannot rewind."""


class Slot(Protocol):
    """KV memory of one sequence. `tokens` are those whose keys and values it holds, in order.

    The first `read_tokens` of them are, bit for bit, what reading them as a prompt gives; a decoded token may differ in
    the last bits, since native libraries decode with other kernels than they read with.
    """

    capacity_tokens: int
    tokens: list[int]
    read_tokens: int
    sampler: Sampler


class Backend(Protocol):
    """One loaded model. Not thread-safe; owned by the engine's main thread."""

    info: ModelInfo

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation in the model's own chat format, ready for the answer. `role` and `content` are
        text, or `content` a list of texts and pictures for a model that takes them; a picture is a run of its own
        negative number. Control tokens inside any content are encoded as plain text."""

    def encode_text(self, text: str) -> list[int]:
        """Token ids of plain text; control tokens in it are plain text too."""

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes a token stands for, perhaps part of a character; empty for control tokens."""

    def open_slot(self, capacity_tokens: int) -> Slot:
        """Allocate KV memory for `capacity_tokens`, prompt and answer together."""

    def prefill(self, slot: Slot, tokens: Sequence[int], stopped: Callable[[], bool] | None = None) -> None:
        """Append a slice of a prompt to the slot. `stopped`, if given, is asked meanwhile, in the calling thread; once
        it says True the call ends and raises Interrupted."""

    def see(self, slot: Slot, tokens: Sequence[int], pictures: Sequence[Picture], stopped: Callable[[], bool]) -> None:
        """Read the beginning of a prompt up to its last picture, into a fresh slot. `stopped` as above,
        but the library may be unable to end this call."""

    def step(self, slots: Sequence[Slot]) -> list[list[Picked]]:
        """One or more new tokens for each slot, picked by its sampler. Each slot must have been prefilled."""

    def rewind(self, slot: Slot, length: int) -> None:
        """Keep the slot's first `length` tokens; tokens must be appended before the next step."""

    def close_slot(self, slot: Slot) -> None:
        """Give the slot's KV memory back."""
