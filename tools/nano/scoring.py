"""Scores an ONNX folder on the held-out cases with onnxruntime-genai: greedy, exact match."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nano.chat import Conversation
from nano.mixture import SKILLS, held_out_set

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the library is loaded

_SPARE_TOKENS = 160  # the longest right answer takes about 90


@dataclass(frozen=True)
class Miss:
    """A case the model got wrong."""

    kind: str
    prompt: list[dict[str, str]]
    expected: str
    got: str


@dataclass(frozen=True)
class Score:
    """Percent of exact matches per skill and per kind of question, and the misses."""

    by_skill: dict[str, float]
    by_kind: dict[str, tuple[float, int]]
    misses: list[Miss]


def open_model(folder: Path) -> Callable[[list[dict[str, str]]], str]:
    """Load a folder; the function that comes back answers a list of messages greedily."""
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)

    def reply(messages: list[dict[str, str]]) -> str:
        prompt = tokenizer.encode(tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True))
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=len(prompt) + _SPARE_TOKENS, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(prompt)
        while not generator.is_done():
            generator.generate_next_token()
        return str(tokenizer.decode(generator.get_sequence(0)[len(prompt) :]))

    return reply


def score_cases(reply: Callable[[list[dict[str, str]]], str], cases: dict[str, list[Conversation]]) -> Score:
    """Ask every case; `cases` are given per skill."""
    by_skill: dict[str, list[bool]] = defaultdict(list)
    by_kind: dict[str, list[bool]] = defaultdict(list)
    misses: list[Miss] = []
    for skill, conversations in cases.items():
        for conversation in conversations:
            last = conversation.exchanges[-1]
            got = reply(conversation.prompt())
            by_skill[skill].append(got == last.answer)
            by_kind[last.kind].append(got == last.answer)
            if got != last.answer:
                misses.append(Miss(last.kind, conversation.prompt(), last.answer, got))
    return Score(
        {skill: _percent(hits) for skill, hits in by_skill.items()},
        {kind: (_percent(hits), len(hits)) for kind, hits in sorted(by_kind.items())},
        misses,
    )


def held_out_cases(count: int, seed: int) -> dict[str, list[Conversation]]:
    """The fixed held-out cases of every skill."""
    return {skill: held_out_set(skill, count, seed) for skill in SKILLS}


def _percent(hits: list[bool]) -> float:
    return round(100 * sum(hits) / len(hits), 1)
