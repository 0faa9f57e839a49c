"""What the shipped model says, by its meaning: the golden prompts of models/nano, asked through a real daemon."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from edged.client import Answer, AsyncClient, Client
from tests.integration.raw import Daemon, Peer, nano_folder

CASES: list[dict[str, Any]] = json.loads((nano_folder() / "golden.json").read_text(encoding="utf-8"))
FOLLOW_UPS = [case for case in CASES if sum(turn["role"] == "user" for turn in case["messages"]) > 1]


def meaning(answer: str) -> Any:
    """A command is what its JSON says; a sentence is its words and numbers, whatever the punctuation and case."""
    if answer.lstrip().startswith("{"):
        return json.loads(answer)
    return re.findall(r"\d+(?:\.\d+)?|\w+", answer.casefold())


def label(case: dict[str, Any]) -> str:
    return f"{case['skill']}-{CASES.index(case)}"


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with Daemon() as daemon:
        yield daemon.ready()


@pytest.fixture(scope="module")
def answers(served: Daemon) -> list[Answer]:
    """All of them asked at once, as the programs of a box would: being stepped in turn changes nobody's answer."""

    async def ask() -> list[Answer]:
        async with AsyncClient(served.endpoint) as client:
            return await asyncio.gather(*(client.chat(case["messages"], max_tokens=200) for case in CASES))

    return asyncio.run(ask())


@pytest.mark.aarch64
def test_every_skill_is_asked() -> None:
    assert {case["skill"] for case in CASES} >= {"commands", "readings", "follow_ups", "about"}
    assert len(CASES) >= 20
    assert FOLLOW_UPS


@pytest.mark.parametrize("case", CASES, ids=label)
@pytest.mark.aarch64
def test_the_answer_means_what_it_should(case: dict[str, Any], answers: list[Answer]) -> None:
    answer = answers[CASES.index(case)]
    assert meaning(answer.text) == meaning(case["expected"]), answer.text
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("case", FOLLOW_UPS, ids=label)
def test_a_second_turn_in_a_session_reads_only_what_is_new(case: dict[str, Any], served: Daemon) -> None:
    turns = case["messages"]
    with Client(served.endpoint) as client:
        first = client.chat(turns[:-2], session="golden", max_tokens=200)
        second = client.chat(turns, session="golden", max_tokens=200)
        client.session_close("golden")
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    assert meaning(second.text) == meaning(case["expected"]), second.text


@pytest.mark.aarch64
def test_raw_sockets_get_the_same_words(served: Daemon, answers: list[Answer]) -> None:
    with Peer(served.endpoint) as peer:
        whole = peer.ask("chat", messages=CASES[0]["messages"], max_tokens=200)
    assert whole["text"] == answers[0].text
