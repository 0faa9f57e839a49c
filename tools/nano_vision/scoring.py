"""Scores a model folder on the held-out cases with onnxruntime-genai: greedy, exact match of the whole answer.

A plain program of its own: onnxruntime-genai reads the three graphs, the tensors are those that edged makes.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from edged.engine.images.crops import SIDE, Grid, pixel_values, scaled
from nano_vision.drawing import draw
from nano_vision.questions import SKILLS, Case, held_out

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the library is loaded

Ask = Callable[[Sequence[Image.Image], str], str]
_SPARE_TOKENS = 120  # the longest right answer takes about 70


@dataclass(frozen=True)
class Miss:
    """A case the model got wrong."""

    skill: str
    question: str
    expected: str
    got: str


def open_model(folder: Path) -> Ask:
    """Load a folder; the function that comes back answers a question about one or more pictures greedily."""
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    ends = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]["eos_token_id"]

    def ask(images: Sequence[Image.Image], question: str) -> str:
        message = [{"role": "user", "content": "\n" * len(images) + question}]
        text = tokenizer.apply_chat_template(json.dumps(message), add_generation_prompt=True)
        head, rest = text.split("\n" * len(images) + question)
        ids = list(tokenizer.encode(head))
        for number in range(1, len(images) + 1):
            ids += [-number] * Grid(1, 1).tokens
            ids += list(tokenizer.encode("\n" if number < len(images) else "\n" + question + rest))
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=len(ids) + _SPARE_TOKENS, do_sample=False)
        generator = og.Generator(model, parameters)
        inputs = og.NamedTensors()
        inputs["input_ids"] = np.array([ids], dtype=np.int32)
        inputs["pixel_values"] = np.stack([pixel_values(scaled(image, 1)) for image in images])
        inputs["image_sizes"] = np.full((len(images), 2), SIDE, dtype=np.int64)
        inputs["num_image_tokens"] = np.full(len(images), Grid(1, 1).tokens, dtype=np.int64)
        generator.set_inputs(inputs)
        while not generator.is_done():
            generator.generate_next_token()
        answer = [int(token) for token in generator.get_sequence(0)[len(ids) :]]
        return str(tokenizer.decode([token for token in answer if token not in ends]))

    return ask


def pictures_of(case: Case) -> list[Image.Image]:
    """The exposures of a case, in order."""
    return [draw(scene, case.look, number) for number, scene in enumerate(case.scenes)]


def score(ask: Ask, count: int, seed: int) -> tuple[dict[str, float], list[Miss]]:
    """Percent of exact matches per skill over `count` held-out cases each, and the misses."""
    right: dict[str, list[bool]] = defaultdict(list)
    misses: list[Miss] = []
    for skill in SKILLS:
        for case in held_out(skill, count, seed):
            exchange = case.exchanges[0]
            got = ask(pictures_of(case), exchange.question)
            right[skill].append(got == exchange.answer)
            if got != exchange.answer:
                misses.append(Miss(skill, exchange.question, exchange.answer, got))
    return {skill: round(100 * sum(hits) / len(hits), 1) for skill, hits in right.items()}, misses
