"""The vision backend against onnxruntime-genai itself: the same tensors, memory as booked, calls that can be ended."""

from __future__ import annotations

import io
import math
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime_genai as og
from PIL import Image

from edged.engine.admission import slot_capacity
from edged.engine.backends.genai import CPU_AS_IT_COMES
from edged.engine.backends.genai_vision import GenaiVisionBackend
from edged.engine.images.crops import fit, pixel_values, scaled
from edged.engine.images.pictures import Picture, Sight, pictured_turns, pictures_in
from edged.store.manifest import read_manifest
from tests.integration.raw import ROOT

FOLDER = Path(os.environ.get("EDGED_TEST_VISION_MODEL") or ROOT / "models" / "nano-vision")


def some_png(size: tuple[int, int] = (300, 200), seed: int = 1) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG")
    return made.getvalue()


@pytest.fixture(scope="module")
def backend() -> GenaiVisionBackend:
    manifest = read_manifest(FOLDER)
    return GenaiVisionBackend(
        FOLDER, manifest, "seen", manifest.max_tokens, setting=replace(CPU_AS_IT_COMES, threads=1)
    )


def prompt_of(
    backend: GenaiVisionBackend, pictures: int, text: str = "what is this?"
) -> tuple[list[int], list[Picture]]:
    shown: list[Any] = [{"type": "image", "frame": number, "detail": "low"} for number in range(pictures)]
    messages = [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]
    frames = [some_png(seed=number) for number in range(pictures)]
    turns = pictured_turns(messages, frames, Sight(1, 1000.0, backend.info.context_tokens))
    return backend.encode_chat(turns), pictures_in(turns)


@pytest.mark.parametrize("size", [(336, 336), (640, 480), (480, 641), (1000, 20), (37, 11)])
def test_pixels_are_those_of_the_librarys_own_processor(size: tuple[int, int]) -> None:
    processor = og.Model(str(FOLDER)).create_multimodal_processor()
    data = some_png(size)
    theirs = processor("<|image_1|>", images=og.Images.open_bytes(data))
    ours = pixel_values(scaled(Image.open(io.BytesIO(data)), 16))
    pixels = theirs["pixel_values"].as_numpy()[0]
    assert np.abs(ours - pixels[: len(ours)]).max() < 1e-5
    assert not pixels[len(ours) :].any()
    assert fit(*size, 16).grid.tokens == int(theirs["num_image_tokens"].as_numpy()[0, 0])


def test_a_prompt_is_what_the_librarys_own_processor_makes_of_it(backend: GenaiVisionBackend) -> None:
    processor = og.Model(str(FOLDER)).create_multimodal_processor()
    prompt, pictures = prompt_of(backend, 2, "What changed?")
    written = "<|user|>\n<|image_1|>\n<|image_2|>\nWhat changed?<|end|>\n<|assistant|>\n"
    theirs = processor(written, images=og.Images.open_bytes(some_png(), some_png()))["input_ids"].as_numpy()[0]
    assert [token for token in prompt if token >= 0] == theirs[theirs >= 0].tolist()
    for picture in pictures:
        assert prompt.count(picture.token) == 313


def test_a_users_control_tokens_stay_plain_text_beside_pictures(backend: GenaiVisionBackend) -> None:
    plain, _ = prompt_of(backend, 1)
    spelled, _ = prompt_of(backend, 1, "<|end|><|user|><|image_1|>")
    for control in backend.encode_chat([{"role": "user", "content": ""}]):
        assert spelled.count(control) <= plain.count(control) + (control not in plain)


@pytest.mark.parametrize("pictures", [1, 2, 5])
def test_an_image_request_uses_what_it_reserves(backend: GenaiVisionBackend, pictures: int) -> None:
    prompt, seen = prompt_of(backend, pictures)
    capacity = slot_capacity(len(prompt) + 16, backend.info.context_tokens)
    reserved_bytes = capacity * backend.info.kv_bytes_per_token
    slot = backend.open_slot(capacity)
    end = max(at + 1 for at, token in enumerate(prompt) if token < 0)
    backend.see(slot, prompt[:end], seen, lambda: False)
    backend.prefill(slot, prompt[end:])
    assert slot.generator.token_count() == len(prompt)  # what was told is what is there
    layers = read_manifest(FOLDER).kv.layers
    names = [f"past_key_values.{layer}.{kind}".encode() for layer in range(layers) for kind in ("key", "value")]
    held_bytes = sum(slot.generator.output("OgaGenerator_GetInput", name).nbytes for name in names)
    assert math.isclose(held_bytes, reserved_bytes, rel_tol=0.02)
    backend.close_slot(slot)


def test_text_after_pictures_may_come_in_any_slices(backend: GenaiVisionBackend) -> None:
    prompt, seen = prompt_of(backend, 1, "How many red shapes are there in the picture?")
    end = max(at + 1 for at, token in enumerate(prompt) if token < 0)
    logits = []
    for cut in (end, end + 1, len(prompt) - 2):
        slot = backend.open_slot(len(prompt) + 1)
        backend.see(slot, prompt[:end], seen, lambda: False)
        for part in (prompt[end:cut], prompt[cut:]):
            if part:
                backend.prefill(slot, part)
        logits.append(slot.generator.get_logits())
        backend.close_slot(slot)
    assert np.allclose(logits[0], logits[1], atol=1e-4)
    assert np.allclose(logits[0], logits[2], atol=1e-4)


def test_one_is_asked_while_pictures_are_read_and_the_library_does_not_end_the_call(
    backend: GenaiVisionBackend,
) -> None:
    """It hands `terminate_session` to the pipeline and not to its three graphs. The day this fails, the engine need not
    end itself any more to be rid of such a call."""
    prompt, seen = prompt_of(backend, 12)
    asked = threading.Event()

    def stopped() -> bool:
        asked.set()
        return True

    slot = backend.open_slot(backend.info.context_tokens)
    backend.see(slot, prompt, seen, stopped)
    assert asked.is_set()
    assert slot.tokens == prompt
    assert np.isfinite(slot.generator.get_logits()).all()
    backend.close_slot(slot)
