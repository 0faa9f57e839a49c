"""Conversations of all skills in the shares a stage of training asks for, and the fixed held-out sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from nano import commands, readings
from nano.about import about_exchange
from nano.chat import Conversation, Exchange, maybe_system
from nano.world import Split

SKILLS: tuple[str, ...] = ("commands", "readings", "follow_ups", "about")


@dataclass(frozen=True)
class Stage:
    """One stage of the curriculum.

    `until_step` is the step at which it ends, `shares` how often each skill is drawn, `list_lengths` and `turns` the
    fewest and the most readings and questions about them, `kinds` the shares of the questions (none: the usual ones),
    `recall` the share of rows that only train looking up.
    """

    until_step: int
    shares: dict[str, float]
    list_lengths: tuple[int, int]
    turns: tuple[int, int]
    kinds: dict[str, int] | None = None
    recall: float = 0.0


def _commands(rng: Random, split: Split, turns: int) -> list[Exchange]:
    command = commands.some_command(rng, split)
    exchanges = [commands.command_exchange(rng, command)]
    for _ in range(turns - 1):
        exchange, command = commands.follow_up(rng, command, split)
        exchanges.append(exchange)
    return exchanges


def _readings(rng: Random, split: Split, stage: Stage, turns: int) -> list[Exchange]:
    entries = readings.some_list(rng, split, stage.list_lengths)
    exchange, question = readings.opening(rng, entries, stage.kinds)
    exchanges = [exchange]
    for _ in range(turns - 1):
        if rng.random() < (0.5 if stage.kinds is None else 0.15):
            exchange, question = readings.follow_up(rng, entries, question)
        else:
            exchange, question = readings.next_question(rng, entries, stage.kinds)
        exchanges.append(exchange)
    return exchanges


def training_conversation(rng: Random, stage: Stage) -> Conversation:
    """One conversation for training; one in eight goes on with another subject."""
    exchanges: list[Exchange] = []
    skill = ""
    while True:
        skill = rng.choices(tuple(stage.shares), tuple(stage.shares.values()))[0]
        if skill == "readings":
            exchanges += _readings(rng, "train", stage, rng.randint(*stage.turns))
        elif skill == "commands":
            exchanges += _commands(rng, "train", rng.randint(1, 3))
        else:
            exchanges.append(about_exchange(rng, "train"))
        if len(exchanges) >= 4 or rng.random() > (0.5 if skill == "about" else 0.125):
            return Conversation(skill, tuple(exchanges), maybe_system(rng))


HELD_OUT_STAGE = Stage(0, {}, (2, 5), (1, 1))


def held_out_conversation(rng: Random, skill: str) -> Conversation:
    """One conversation from the held-out combinations; only its last answer is scored."""
    if skill == "commands":
        exchanges = _commands(rng, "eval", 1)
    elif skill == "readings":
        exchanges = _readings(rng, "eval", HELD_OUT_STAGE, 1)
    elif skill == "about":
        exchanges = [about_exchange(rng, "eval")]
    elif rng.random() < 0.5:
        exchanges = _commands(rng, "eval", 2)
    else:
        entries = readings.some_list(rng, "eval", HELD_OUT_STAGE.list_lengths)
        question = readings.Question("list")
        while question.kind == "list":
            first, question = readings.opening(rng, entries)
        exchanges = [first, readings.follow_up(rng, entries, question)[0]]
    return Conversation(skill, tuple(exchanges), maybe_system(rng, 0.5))


def held_out_set(skill: str, count: int, seed: int = 0) -> list[Conversation]:
    """The fixed held-out cases of a skill, no two with the same prompt."""
    rng = Random(f"{seed}:{skill}")
    seen: set[str] = set()
    cases: list[Conversation] = []
    while len(cases) < count:
        case = held_out_conversation(rng, skill)
        key = repr(case.prompt())
        if key not in seen:
            seen.add(key)
            cases.append(case)
    return cases


def training_stream(seed: str, stage: Stage) -> Iterator[Conversation]:
    """Endless training conversations."""
    rng = Random(seed)
    while True:
        yield training_conversation(rng, stage)
