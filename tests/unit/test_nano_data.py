"""The data of the nano model: reproducible, right by an independent reading of the prompt, and honestly split."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from nano import mixture
from nano.about import TOPICS
from nano.chat import Conversation, Exchange
from nano.world import DEVICES, PLACES, held_out

STAGE = mixture.Stage(1, {"readings": 0.4, "commands": 0.3, "about": 0.3}, (2, 6), (1, 5))
KINDS = ("list", "several", "where", "rank", "value", "highest", "lowest", "any", "place_limit", "which", "count")
WIDE_STAGE = mixture.Stage(1, {"readings": 1.0}, (2, 6), (1, 5), dict.fromkeys(KINDS, 1))
READING = re.compile(r"^- ([a-z ]+): (\d\d\.\d)$", re.MULTILINE)
LIMIT = re.compile(r"(above|over|higher than|below|under|lower than) (\d+(?:\.\d)?)")
COMPARED = r"(above|below) (\d+)"


def draws(seed: str, count: int) -> list[Conversation]:
    """The first conversations of a training stream."""
    stream = mixture.training_stream(seed, STAGE)
    return [next(stream) for _ in range(count)]


def reading_exchanges(conversation: Conversation) -> list[tuple[dict[str, float], Exchange]]:
    """Each exchange about readings, with the readings of the newest list before it, read from the text."""
    readings: dict[str, float] = {}
    found = []
    for exchange in conversation.exchanges:
        listed = READING.findall(exchange.user)
        if listed:
            readings = {place: float(value) for place, value in listed}
        if "readings" in exchange.kind:
            found.append((readings, exchange))
    return found


def test_the_same_seed_gives_the_same_conversations() -> None:
    assert draws("a", 300) == draws("a", 300)
    assert draws("a", 300) != draws("b", 300)


def test_held_out_sets_are_fixed_and_without_repeats() -> None:
    for skill in mixture.SKILLS:
        cases = mixture.held_out_set(skill, 300)
        assert cases == mixture.held_out_set(skill, 300)
        assert len({repr(case.prompt()) for case in cases}) == 300
        assert all(case.skill == skill for case in cases)


def test_the_split_holds_out_about_one_combination_in_eight() -> None:
    pairs = [(device.name, place) for device in DEVICES for place in PLACES]
    share = sum(held_out(*pair) for pair in pairs) / len(pairs)
    assert 0.09 < share < 0.16
    for device in DEVICES:
        assert 1 < sum(held_out(device.name, place) for place in PLACES) < len(PLACES) / 2


def device_place_pairs(conversations: list[Conversation]) -> set[tuple[str, str]]:
    """Every pair a JSON answer names."""
    answers = [json.loads(e.answer) for c in conversations for e in c.exchanges if e.answer.startswith("{")]
    return {(answer["device"], answer["place"]) for answer in answers}


def test_training_never_draws_a_held_out_device_and_place() -> None:
    trained = device_place_pairs(draws("split", 6000))
    scored = device_place_pairs(mixture.held_out_set("commands", 400) + mixture.held_out_set("follow_ups", 400))
    assert len(trained) > 500
    assert len(scored) > 100
    assert trained.isdisjoint(scored)


def test_training_never_draws_a_held_out_place_and_value() -> None:
    def pairs(conversations: list[Conversation]) -> set[tuple[str, float]]:
        lists = [readings for c in conversations for readings, _ in reading_exchanges(c)]
        return {pair for readings in lists for pair in readings.items()}

    trained = pairs(draws("split", 6000))
    scored = pairs(mixture.held_out_set("readings", 400) + mixture.held_out_set("follow_ups", 400))
    assert len(trained) > 5000
    assert len(scored) > 1000
    assert trained.isdisjoint(scored)


def test_training_never_draws_a_held_out_wording_of_the_about_skill() -> None:
    def wordings(conversations: list[Conversation]) -> set[str]:
        return {
            e.user[:1].lower() + e.user[1:] for c in conversations for e in c.exchanges if e.kind.startswith("about")
        }

    trained, scored = wordings(draws("split", 6000)), wordings(mixture.held_out_set("about", 400))
    assert len(trained) > 1000
    assert trained.isdisjoint(scored)


def check_command(exchange: Exchange, previous: dict[str, object]) -> dict[str, object]:
    """The JSON must say what the words say; what the words leave out comes from the command before."""
    answer: dict[str, object] = json.loads(exchange.answer)
    assert list(answer) == [key for key in ("device", "place", "action", "value", "unit") if key in answer]
    text = exchange.user.lower()
    for key, names in (("device", [device.name for device in DEVICES]), ("place", list(PLACES))):
        named = {name for name in names if re.search(rf"\b{name}\b", text)}
        longest = {name for name in named if not any(name != other and name in other for other in named)}
        assert longest in ({answer[key]}, set()), exchange
        if not longest:
            assert answer[key] == previous[key], exchange
    number = re.search(r"\d+", text)
    if number:
        assert answer["value"] == int(number[0]), exchange
        spelt = re.search(r"\d+ ?(%|degree|percent|rpm|bar|watt|minute|second|hour)", text)
        unit = str(answer["unit"])
        if spelt:
            assert unit.startswith({"%": "percent"}.get(spelt[1], spelt[1])), exchange
        else:
            assert unit == previous["unit"], exchange
    return answer


def test_commands_say_what_the_words_say() -> None:
    checked = 0
    for conversation in draws("commands", 3000) + mixture.held_out_set("commands", 300):
        previous: dict[str, object] = {}
        for exchange in conversation.exchanges:
            if "command" in exchange.kind:
                previous = check_command(exchange, previous)
                checked += 1
    assert checked > 1500


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (r"\bon\b", "on"),
        (r"\boff\b", "off"),
        (r"\bunlock\b", "unlock"),
        (r"\bby \d|\bmore\b", "raise"),
        (r"\bdim\b", "dim"),
    ],
)
def test_first_commands_take_their_action_from_the_verb(words: str, action: str) -> None:
    cases = [case.exchanges[-1] for case in mixture.held_out_set("commands", 600)]
    with_action = [e for e in cases if json.loads(e.answer)["action"] == action]
    assert with_action
    assert all(re.search(words, exchange.user.lower()) for exchange in with_action)


def limit_in(text: str) -> tuple[str, float] | None:
    """The limit a question names, as ("above", 24.0)."""
    found = LIMIT.search(text.lower())
    if found is None:
        return None
    side = "above" if found[1] in ("above", "over", "higher than") else "below"
    return side, float(found[2])


def said_limit(answer: str) -> tuple[str, float]:
    """The limit an answer says that it compared with."""
    found = re.search(COMPARED, answer)
    assert found, answer
    return found[1], float(found[2])


def beyond(value: float, limit: tuple[str, float]) -> bool:
    """Strictly beyond the limit."""
    return value > limit[1] if limit[0] == "above" else value < limit[1]


def check_sentence(readings: dict[str, float], exchange: Exchange, limit: tuple[str, float] | None) -> None:
    """A one-line answer against the readings; `limit` is that of the question, when it names one."""
    words = re.sub(rf"(\d\d\.\d) {COMPARED}: (?=yes|no)", r"\1 ", exchange.answer)
    extreme = re.fullmatch(r"(Highest|Lowest): (\d\d\.\d) ([a-z ]+?)(?:, \2 (yes|no))?\.", words)
    at_place = re.fullmatch(r"In the ([a-z ]+): (\d\d\.\d)(?: (yes|no))?\.", words)
    if extreme:
        value = (max if extreme[1] == "Highest" else min)(readings.values())
        assert (float(extreme[2]), readings[extreme[3]]) == (value, value), exchange
        word = extreme[4]
    else:
        assert at_place, exchange
        value = readings[at_place[1]]
        assert float(at_place[2]) == value, exchange
        word = at_place[3]
    if limit is not None:
        assert word == ("yes" if beyond(value, limit) else "no"), exchange
        assert said_limit(exchange.answer) == limit, exchange


def check_walk(readings: dict[str, float], exchange: Exchange, limit: tuple[str, float]) -> None:
    """A walk through the list: every line with its verdict; when it was to count, the number of them."""
    lines = exchange.answer.split("\n")
    met = [place for place, value in readings.items() if beyond(value, limit)]
    side, than = limit
    walked = [f"- {p}: {v:.1f} {side} {than:g}: {'yes' if p in met else 'no'}" for p, v in readings.items()]
    assert lines[: len(readings)] == walked, exchange
    if len(lines) > len(readings):
        found = re.fullmatch(r"(Above|Below) (\d+(?:\.\d)?): (\d)\.", lines[-1])
        assert found, exchange
        assert (found[1].lower(), float(found[2]), int(found[3])) == (*limit, len(met)), exchange


def test_answers_about_readings_are_right() -> None:
    checked = 0
    for conversation in draws("readings", 3000) + mixture.held_out_set("readings", 300):
        for readings, exchange in reading_exchanges(conversation):
            checked += 1
            limit = limit_in(exchange.user)
            missing = re.fullmatch(r"There is no reading for the ([a-z ]+)\.", exchange.answer)
            if missing:
                assert missing[1] not in readings
            elif exchange.answer.startswith("- ") and limit is not None:
                check_walk(readings, exchange, limit)
            elif exchange.answer.startswith("- "):
                assert {p: float(v) for p, v in READING.findall(exchange.answer)} == readings
            else:
                check_sentence(readings, exchange, limit)
    assert checked > 2500


def test_training_only_questions_about_readings_are_right() -> None:
    stream = mixture.training_stream("wide", WIDE_STAGE)
    seen = {"several": 0, "where": 0, "rank": 0}
    for _ in range(1500):
        for readings, exchange in reading_exchanges(next(stream)):
            kind = exchange.kind.removeprefix("readings.")
            if kind == "several":
                pairs = re.findall(r"In the ([a-z ]+): (\d\d\.\d)\.", exchange.answer)
                assert [p for p, _ in pairs] == re.findall(r"the ([a-z]+)", exchange.user.split("\n")[-1].lower())
            elif kind in ("where", "rank"):
                pairs = [(p, v) for v, p in re.findall(r"(\d\d\.\d) ([a-z ]+)", exchange.answer)]
                values = [float(value) for _, value in pairs]
                if kind == "where":
                    assert [f"{value:.1f}" for value in values] == re.findall(
                        r"\d\d\.\d", exchange.user.split("\n")[-1]
                    )
                else:
                    assert values in (sorted(readings.values()), sorted(readings.values(), reverse=True))
            else:
                continue
            seen[kind] += 1
            assert pairs
            assert all(readings[place] == float(value) for place, value in pairs), exchange
    assert min(seen.values()) > 100


def test_a_question_for_an_extreme_is_answered_with_that_extreme() -> None:
    asked = [case.exchanges[-1] for case in mixture.held_out_set("readings", 600)]
    for words, side in (("warmest|hottest|highest|maximum", "Highest"), ("coldest|coolest|lowest|minimum", "Lowest")):
        extremes = [e for e in asked if re.search(words, e.user.split("\n")[-1].lower())]
        assert len(extremes) > 20
        assert all(e.answer.startswith(f"{side}: ") for e in extremes)


def test_second_turns_lean_on_the_first() -> None:
    cases = mixture.held_out_set("follow_ups", 300)
    assert all(len(case.exchanges) == 2 for case in cases)
    for case in cases:
        first, second = case.exchanges
        if "command" in second.kind:
            before, after = json.loads(first.answer), json.loads(second.answer)
            assert before["device"] == after["device"] or before["place"] == after["place"]
        else:
            assert not READING.search(second.user)


def test_what_it_says_about_itself_names_the_command_for_a_bigger_model() -> None:
    answers = {topic.name: topic.answer for topic in TOPICS}
    assert "edged pull phi3.5-mini" in answers["bigger"]
    assert len(set(answers.values())) == len(TOPICS)


def test_prompts_end_with_the_question_and_carry_the_right_answers_before_it() -> None:
    for case in mixture.held_out_set("follow_ups", 50):
        messages = case.prompt()
        roles = [message["role"] for message in messages if message["role"] != "system"]
        assert roles == ["user", "assistant", "user"]
        assert messages[-1]["content"] == case.exchanges[-1].user
        assert messages[-2]["content"] == case.exchanges[0].answer


def test_no_generator_asks_for_an_unfilled_place_holder() -> None:
    rng = Random(3)
    for _ in range(2000):
        for exchange in mixture.training_conversation(rng, STAGE).exchanges:
            assert not re.search(r"\{[a-z]\}", exchange.user + exchange.answer)
            assert "None" not in exchange.user + exchange.answer
