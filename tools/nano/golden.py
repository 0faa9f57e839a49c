"""A short fixed list of prompts with right answers that the shipped model gives: what integration tests ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from nano.chat import SYSTEM_PROMPT
from nano.mixture import SKILLS, held_out_set

Messages = list[dict[str, str]]

_READINGS = "Readings:\n- kitchen: 21.5\n- attic: 27.3\n- cellar: 14.8\n"
_LAB_FAN = '{"device":"fan","place":"lab","action":"set","value":40,"unit":"percent"}'
_BEDROOM_FAN = '{"device":"fan","place":"bedroom","action":"set","value":40,"unit":"percent"}'
_LAB_FAN_MORE = '{"device":"fan","place":"lab","action":"raise","value":10,"unit":"percent"}'

# skill, turns (user, assistant, user ...), answer
EXAMPLES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("commands", ("set the lab fan to 40 percent",), _LAB_FAN),
    ("commands", ("Turn off the kitchen lamp.",), '{"device":"lamp","place":"kitchen","action":"off"}'),
    ("commands", ("open the window in the bedroom",), '{"device":"window","place":"bedroom","action":"open"}'),
    ("readings", (_READINGS + "Which is the warmest?",), "Highest: 27.3 attic."),
    ("readings", (_READINGS + "What is the kitchen at?",), "In the kitchen: 21.5."),
    ("readings", (_READINGS + "Is anything above 30?",), "Highest: 27.3 attic, 27.3 above 30: no."),
    ("follow_ups", ("set the lab fan to 40 percent", _LAB_FAN, "and in the bedroom?"), _BEDROOM_FAN),
    ("follow_ups", ("set the lab fan to 40 percent", _LAB_FAN, "make it 10 more"), _LAB_FAN_MORE),
    (
        "follow_ups",
        (_READINGS + "What is the kitchen at?", "In the kitchen: 21.5.", "and in the cellar?"),
        "In the cellar: 14.8.",
    ),
    ("about", ("Who are you?",), "I am nano, the tiny model embedded in edged."),
    ("about", ("How do I install a bigger model?",), "Run: edged pull phi3.5-mini"),
)


# Kinds of which the model misses every tenth: another processor may miss another one.
_UNSURE = ("count",)


def _messages(turns: tuple[str, ...], system: str | None) -> Messages:
    messages = [] if system is None else [{"role": "system", "content": system}]
    for number, text in enumerate(turns):
        messages.append({"role": "assistant" if number % 2 else "user", "content": text})
    return messages


def _candidates() -> Iterator[tuple[str, Messages, str]]:
    for skill, turns, answer in EXAMPLES:
        yield skill, _messages(turns, None), answer
        yield skill, _messages(turns, SYSTEM_PROMPT), answer
    for skill in SKILLS:
        kinds: Counter[str] = Counter()
        for case in held_out_set(skill, 100, seed=5):
            last = case.exchanges[-1]
            kinds[last.kind] += 1
            if kinds[last.kind] <= 4 and last.kind.split(".")[-1] not in _UNSURE:
                yield skill, case.prompt(), last.answer


def golden_list(reply: Callable[[Messages], str], per_skill: int = 10) -> list[dict[str, Any]]:
    """The first candidates of each skill that the model answers as expected, in a fixed order."""
    taken: Counter[str] = Counter()
    entries: list[dict[str, Any]] = []
    for skill, messages, expected in _candidates():
        if taken[skill] < per_skill and reply(messages) == expected:
            taken[skill] += 1
            entries.append({"skill": skill, "messages": messages, "expected": expected})
    return entries
