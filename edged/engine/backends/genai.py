"""Text models of onnxruntime-genai behind the `Backend` interface.

Prompts, and tokens picked by us, go in by `append_tokens`: sampling is ours, so any request may use any sampling on a
kept KV cache. A plain greedy request is left to `generate_next_token`, which runs the same graph, gives the same tokens
and spares the handing over of the logits. Either way a picked token is computed at the *next* step, so the last one of
an answer costs no forward pass; and after `rewind_to` something is always appended first, for it replays a token
otherwise.

A token that is appended alone goes through other CPU kernels (decode attention) than one that is appended with others:
the sums round differently, and int8 activations blow the last bits up until now and then another token is picked.
Appends of two and more agree bit for bit however they are cut, as long as no row is left alone in a tile of the
attention kernel, whose height is twice the head size (measured with onnxruntime 1.31; tests/integration/
test_prefix_reuse.py).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime_genai as og
from numpy.typing import NDArray

from edged.allocator import give_back
from edged.engine.backends import genai_c, interruptible
from edged.engine.backends.base import Interrupted, ModelInfo, Slot
from edged.engine.backends.vocabulary import read_vocabulary
from edged.engine.plain_text import PlainText
from edged.engine.sampler import Picked, Sampler, Sampling
from edged.errors import Internal, ModelError
from edged.hardware.trial_messages import CPU, ProviderSpec
from edged.hardware.tune import Setting
from edged.store.manifest import ModelManifest

if TYPE_CHECKING:
    from edged.engine.images.pictures import Picture

TRIM_BYTES = 16 * 2**20  # KV memory worth asking glibc to give back
TILE_ROWS = 32  # divides the tile height of every usual head size
CPU_AS_IT_COMES = Setting(CPU.key)
LOOK_EVERY = 64  # tokens of a greedy answer between two looks at its logits
_ANCHORS = ("\n", "\t", "0")


class GenaiSlot:
    """A `Generator` with its KV memory.

    `pending` was picked and is not computed yet; `generated` when the generator picked it, and so has it already.
    """

    __slots__ = ("capacity_tokens", "generated", "generator", "pending", "read_tokens", "sampler", "tokens")

    def __init__(self, generator: genai_c.Generator, capacity_tokens: int) -> None:
        self.generator = generator
        self.capacity_tokens = capacity_tokens
        self.tokens: list[int] = []
        self.read_tokens = 0
        self.pending: int | None = None
        self.generated = False
        self.sampler = Sampler(Sampling())


class GenaiBackend:
    """One model on one execution provider."""

    def __init__(
        self,
        folder: Path,
        manifest: ModelManifest,
        name: str,
        context_tokens: int,
        provider: ProviderSpec = CPU,
        setting: Setting = CPU_AS_IT_COMES,
    ) -> None:
        """Load the model. Raises ModelError when the library refuses it."""
        try:
            self._open(folder, provider, setting)
        except Exception as error:  # the library raises bare RuntimeError and its own kinds
            raise ModelError(folder, "", f"onnxruntime-genai refused it: {_first_line(error)}") from error
        self._ends = frozenset(manifest.eos_ids)
        self._vocabulary = read_vocabulary(folder)
        self._plain = PlainText(self._vocabulary.control)
        self._anchors = [(anchor, self._encode(anchor)) for anchor in _ANCHORS]
        self.strips_first_space = self._vocabulary.strips_first_space
        self.info = ModelInfo(
            name=name,
            type=manifest.model_type,
            context_tokens=context_tokens,
            vocab_size=manifest.vocab_size,
            eos_token_ids=frozenset(manifest.eos_ids),
            kv_bytes_per_token=manifest.kv_bytes_per_token,
            weights_bytes=manifest.weights_bytes,
            can_rewind=manifest.kind == "text" and manifest.sliding_window is None,
            provider=provider.ort_name,
            most_crops=manifest.most_crops,
        )

    def _open(self, folder: Path, provider: ProviderSpec, setting: Setting) -> None:
        """Load model and tokenizer."""
        self._model = genai_c.Model(configure(genai_c.Config(str(folder)), provider, setting))
        self._tokenizer = genai_c.Tokenizer(self._model)

    # ---- text

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        mark = self._plain.choose_mark(message["content"] for message in messages)
        marked = [{**message, "content": self._plain.mark(message["content"], mark)} for message in messages]
        return self._encode_marked(self._templated(marked), mark)

    def _templated(self, messages: Sequence[dict[str, Any]]) -> str:
        """The conversation as the model's own chat template writes it, up to where the answer begins."""
        try:
            return self._tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
        except Exception as error:
            raise Internal("the model's chat template failed on this conversation") from error

    def encode_text(self, text: str) -> list[int]:
        mark = self._plain.choose_mark([text])
        return self._encode_marked(self._plain.mark(text, mark), mark)

    def _encode_marked(self, text: str, mark: str) -> list[int]:
        first, *rest = text.split(mark)
        ids = self._encode(first)
        for part in rest:
            ids += self._encode_continued(part)
        return ids

    def _encode_continued(self, text: str) -> list[int]:
        """Ids of text that goes on from other text: without the space or the token some tokenizers put in front."""
        for anchor, anchor_ids in self._anchors:
            ids = self._encode(anchor + text)
            if ids[: len(anchor_ids)] == anchor_ids:
                return ids[len(anchor_ids) :]
        return self._encode(text)

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def token_bytes(self, token: int) -> bytes:
        return self._vocabulary.bytes_of(token)

    # ---- KV memory and steps

    def open_slot(self, capacity_tokens: int) -> GenaiSlot:
        return GenaiSlot(genai_c.Generator(self._model, capacity_tokens), capacity_tokens)

    def prefill(self, slot: Slot, tokens: Sequence[int], stopped: Callable[[], bool] | None = None) -> None:
        slot = _own(slot)
        for number, part in enumerate(_without_lone_row(tokens)):
            self._append(slot, np.asarray(part, dtype=np.int32), None if number else stopped)
            if slot.read_tokens == len(slot.tokens) and len(part) > 1:
                slot.read_tokens += len(part)
            slot.tokens.extend(part)

    def _append(self, slot: GenaiSlot, tokens: NDArray[np.int32], stopped: Callable[[], bool] | None) -> None:
        if stopped is None:
            slot.generator.append_tokens(tokens)
            return
        try:
            interruptible.call(slot.generator, lambda: slot.generator.append_tokens(tokens), stopped)
        except Interrupted:
            if self.info.can_rewind:
                slot.generator.rewind_to(len(slot.tokens))
            raise

    def see(self, slot: Slot, tokens: Sequence[int], pictures: Sequence[Picture], stopped: Callable[[], bool]) -> None:
        raise Internal("this model takes no pictures")

    def step(self, slots: Sequence[Slot]) -> list[list[Picked]]:
        return [[self._step(_own(slot))] for slot in slots]

    def _step(self, slot: GenaiSlot) -> Picked:
        first = slot.pending is None
        if slot.pending is not None:
            self._go_on_from(slot, slot.pending)
        if slot.sampler.greedy and self.info.can_rewind:
            picked = self._greedy(slot, look=first or len(slot.tokens) % LOOK_EVERY == 0)
        else:
            picked = slot.sampler.pick(slot.generator.get_logits()[0, -1])
        slot.pending = picked.token
        return picked

    def _go_on_from(self, slot: GenaiSlot, token: int) -> None:
        """Hand the picked token to the generator, if it was not the one that picked it."""
        if slot.generated and token in self._ends:  # of its own it would say no more
            slot.generator.rewind_to(len(slot.tokens))
            slot.generated = False
        if not slot.generated:
            slot.generator.append_tokens([token])
        slot.generated = False
        slot.tokens.append(token)

    def _greedy(self, slot: GenaiSlot, *, look: bool) -> Picked:
        """The likeliest token, picked by the generator. `look`: see that the model's numbers are numbers."""
        if look:
            slot.sampler.pick(slot.generator.get_logits()[0, -1])
        slot.generator.generate_next_token()
        slot.generated = True
        return Picked(slot.generator.get_next_token())

    def rewind(self, slot: Slot, length: int) -> None:
        slot = _own(slot)
        slot.pending = None
        if length < len(slot.tokens) or slot.generated:
            slot.generator.rewind_to(length)
            slot.generated = False
            del slot.tokens[length:]
            slot.read_tokens = min(slot.read_tokens, length)

    def close_slot(self, slot: Slot) -> None:
        del _own(slot).generator
        if slot.capacity_tokens * self.info.kv_bytes_per_token >= TRIM_BYTES:
            give_back()


def _without_lone_row(tokens: Sequence[int]) -> list[Sequence[int]]:
    """A slice in one part, or in two where its last row would be alone in a tile."""
    if len(tokens) > TILE_ROWS and len(tokens) % TILE_ROWS == 1:
        return [tokens[:-3], tokens[-3:]]
    return [tokens]


def configure(config: genai_c.Config, provider: ProviderSpec, setting: Setting) -> genai_c.Config:
    """The model's own configuration, with our provider and session options in place of those it came with."""
    if setting.cores:
        os.sched_setaffinity(0, setting.cores)  # before any thread pool exists: they inherit it
    if provider.library:
        og.register_execution_provider_library(provider.key, provider.library)
    config.clear_providers()  # none named: CPU
    if provider.genai_name:
        config.append_provider(provider.genai_name)
        for name, value in provider.options:
            config.set_provider_option(provider.genai_name, name, value)
    options: dict[str, Any] = {}
    if not setting.spinning:
        options["session.intra_op.allow_spinning"] = "0"
    if setting.threads:
        options["intra_op_num_threads"] = setting.threads
    if options:
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
    return config


def _own(slot: Slot) -> GenaiSlot:
    assert isinstance(slot, GenaiSlot)
    return slot


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
