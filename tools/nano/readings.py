"""Skill (b), questions about a list of readings, and its second turns.

The forms are chosen so that each step of an answer is a look-up or the comparison of two numbers that stand side by
side: a value is given just as its line has it ("kitchen: 21.5"), an extreme is named by its value first (digit by
digit) and then by its place right behind it, a limit is said again right behind the value it is held against ("21.5
above 20: yes"), and "which" and "how many" walk through the list line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from nano.chat import Exchange, sentence_case
from nano.world import SENSOR_PLACES, Split, belongs

LOWEST_TENTHS, HIGHEST_TENTHS = 100, 399
_NARROW_TENTHS = 40

Entry = tuple[str, int]  # place, value in tenths


def tenths_text(tenths: int) -> str:
    """215 -> "21.5"."""
    return f"{tenths // 10}.{tenths % 10}"


@dataclass(frozen=True)
class Threshold:
    """A limit in tenths; whole ones are written without the decimal."""

    tenths: int
    above: bool

    @property
    def text(self) -> str:
        """As it is typed: "24" or "24.5"."""
        return str(self.tenths // 10) if self.tenths % 10 == 0 else tenths_text(self.tenths)

    @property
    def side(self) -> str:
        """The word that goes before the number."""
        return "above" if self.above else "below"

    def met_by(self, tenths: int) -> bool:
        """Strictly above, or strictly below."""
        return tenths > self.tenths if self.above else tenths < self.tenths

    def held_against(self, tenths: int) -> str:
        """The comparison in words: "21.5 above 20: yes"."""
        return f"{tenths_text(tenths)} {self.side} {self.text}: {'yes' if self.met_by(tenths) else 'no'}"


def some_list(rng: Random, split: Split, lengths: tuple[int, int]) -> tuple[Entry, ...]:
    """Readings with distinct places and distinct values; half of the lists lie close together."""
    count = rng.randint(*lengths)
    low, high = LOWEST_TENTHS, HIGHEST_TENTHS
    if rng.random() < 0.5:
        low = rng.randint(LOWEST_TENTHS, HIGHEST_TENTHS - _NARROW_TENTHS)
        high = low + _NARROW_TENTHS
    entries: dict[str, int] = {}
    while len(entries) < count:
        place, tenths = rng.choice(SENSOR_PLACES), rng.randint(low, high)
        if place not in entries and tenths not in entries.values() and belongs(split, place, tenths):
            entries[place] = tenths
    return tuple(entries.items())


def lines(entries: tuple[Entry, ...]) -> str:
    """One reading per line: "- kitchen: 21.5"."""
    return "\n".join(f"- {place}: {tenths_text(tenths)}" for place, tenths in entries)


def limit_near(rng: Random, tenths: int, above: bool) -> Threshold:
    """A limit in whole numbers, at most four degrees away, so that the comparison is worth asking."""
    near = min(max(tenths + rng.randint(-40, 40), LOWEST_TENTHS), HIGHEST_TENTHS)
    return Threshold(near // 10 * 10, above)


def some_threshold(rng: Random, entries: tuple[Entry, ...], above: bool) -> Threshold:
    """A limit near one of the readings."""
    return limit_near(rng, rng.choice(entries)[1], above)


@dataclass(frozen=True)
class Question:
    """What was asked last: enough to answer it again with one part changed."""

    kind: str
    place: str | None = None
    threshold: Threshold | None = None
    entries: tuple[Entry, ...] = ()


def answer(question: Question, entries: tuple[Entry, ...]) -> str:
    """The one right answer."""
    values = dict(entries)
    kind, threshold = question.kind, question.threshold
    if kind == "list":
        return lines(entries)
    if kind == "several":
        return " ".join(f"In the {place}: {tenths_text(tenths)}." for place, tenths in question.entries)
    if kind in ("where", "rank"):
        return ", ".join(f"{tenths_text(tenths)} {place}" for place, tenths in question.entries) + "."
    if kind in ("value", "place_limit"):
        assert question.place is not None
        if question.place not in values:
            return f"There is no reading for the {question.place}."
        tenths = values[question.place]
        said = tenths_text(tenths) if threshold is None else threshold.held_against(tenths)
        return f"In the {question.place}: {said}."
    if kind in ("highest", "lowest"):
        pick = max if kind == "highest" else min
        place, tenths = pick(entries, key=lambda entry: entry[1])
        tail = "" if threshold is None else f", {threshold.held_against(tenths)}"
        return f"{kind.capitalize()}: {tenths_text(tenths)} {place}{tail}."
    assert threshold is not None
    walk = "\n".join(f"- {place}: {threshold.held_against(tenths)}" for place, tenths in entries)
    if kind == "which":
        return walk
    met = sum(threshold.met_by(tenths) for _, tenths in entries)
    return f"{walk}\n{threshold.side.capitalize()} {threshold.text}: {met}."


_LIST = ("list the readings", "repeat the readings", "show me all readings", "what are the readings?")
_VALUE = (
    "what is the {p} at?", "what is the reading in the {p}?", "how warm is it in the {p}?", "how warm is the {p}?",
    "what is the temperature in the {p}?", "tell me the {p} reading", "what does the {p} sensor say?", "and the {p}?",
    "what is it in the {p}?", "give me the value for the {p}", "{p}?",
)  # fmt: skip
_HIGHEST = (
    "which is the warmest?", "which place is the warmest?", "where is it warmest?", "what is the highest reading?",
    "which is hottest?", "which is warmest?", "where is the highest reading?", "what is the warmest place?",
    "which room is the hottest?", "where is it hottest?", "find the maximum",
)  # fmt: skip
_LOWEST = (
    "which is the coldest?", "which place is the coldest?", "where is it coldest?", "what is the lowest reading?",
    "which is coolest?", "which is coldest?", "where is the lowest reading?", "what is the coldest place?",
    "which room is the coolest?", "where is it coolest?", "find the minimum",
)  # fmt: skip
_ANY = (
    "is anything {l}?", "is any reading {l}?", "is any place {l}?", "is there anything {l}?", "are any readings {l}?",
    "is it {l} anywhere?", "does any sensor read {l}?",
)  # fmt: skip
_PLACE_LIMIT = ("is the {p} {l}?", "is it {l} in the {p}?", "is the {p} reading {l}?")
_WHICH = (
    "which are {l}?", "which places are {l}?", "which ones are {l}?", "where is it {l}?", "list the places {l}",
    "which readings are {l}?", "which rooms are {l}?",
)  # fmt: skip
_COUNT = ("how many are {l}?", "how many readings are {l}?", "how many places are {l}?", "count the readings {l}")
# Lists of look-ups: one question holds many, which is how looking up is learnt first.
_SEVERAL = ("what are {m} at?", "how warm are {m}?", "give me {m}", "{m}?")
_WHERE = ("where is it {m}?", "which places are at {m}?", "who has {m}?")
_RANK = {
    True: ("rank the readings", "sort from highest to lowest", "sort from warmest to coldest"),
    False: ("sort from lowest to highest", "sort from coldest to warmest", "sort the readings"),
}
_HEADERS = (
    "Readings:", "Sensor readings:", "Temperatures:", "Current readings:", "Here are the readings:",
    "These are the readings:", "Readings now:", "Sensors:",
)  # fmt: skip
_SIDES = {True: ("above", "above", "over", "higher than"), False: ("below", "below", "under", "lower than")}

# How often each kind is asked. Walks are long, so that they weigh more in tokens than their share says.
_SHARES = {"value": 26, "highest": 13, "lowest": 13, "any": 16, "place_limit": 12, "which": 12, "count": 6, "list": 4}


def _limit(rng: Random, threshold: Threshold) -> str:
    return f"{rng.choice(_SIDES[threshold.above])} {threshold.text}"


def _place_for(rng: Random, entries: tuple[Entry, ...]) -> str:
    """Mostly a place of the list; now and then one that has no reading."""
    listed = [place for place, _ in entries]
    if rng.random() < 0.9:
        return rng.choice(listed)
    return rng.choice([place for place in SENSOR_PLACES if place not in listed])


def ask(rng: Random, entries: tuple[Entry, ...], shares: dict[str, int] | None = None) -> tuple[str, Question]:
    """A question that stands for itself: its text and its meaning. `shares` says how often each kind is drawn."""
    shares = shares or _SHARES
    kind = rng.choices(tuple(shares), tuple(shares.values()))[0]
    threshold = some_threshold(rng, entries, rng.random() < 0.5)
    limit = _limit(rng, threshold)
    some = tuple(rng.sample(entries, rng.randint(2, len(entries))))
    makers: dict[str, Callable[[], tuple[tuple[str, ...], Question]]] = {
        "list": lambda: (_LIST, Question("list")),
        "several": lambda: (_SEVERAL, Question("several", entries=some)),
        "where": lambda: (_WHERE, Question("where", entries=some)),
        "rank": lambda: (_RANK[threshold.above], Question("rank", entries=_ranked(entries, threshold.above))),
        "value": lambda: (_VALUE, Question("value", _place_for(rng, entries))),
        "highest": lambda: (_HIGHEST, Question("highest")),
        "lowest": lambda: (_LOWEST, Question("lowest")),
        "any": lambda: (_ANY, Question("highest" if threshold.above else "lowest", None, threshold)),
        "place_limit": lambda: (_PLACE_LIMIT, Question("place_limit", _place_for(rng, entries), threshold)),
        "which": lambda: (_WHICH, Question("which", None, threshold)),
        "count": lambda: (_COUNT, Question("count", None, threshold)),
    }
    texts, question = makers[kind]()
    if kind == "several":
        many = _joined([f"the {place}" for place, _ in some])
    else:
        many = _joined([tenths_text(tenths) for _, tenths in some])
    return sentence_case(rng, rng.choice(texts).format(p=question.place, l=limit, m=many)), question


def _ranked(entries: tuple[Entry, ...], highest_first: bool) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry[1], reverse=highest_first))


def _joined(texts: list[str]) -> str:
    """ "a, b and c"."""
    return " and ".join([", ".join(texts[:-1]), texts[-1]])


def _kind_name(question: Question) -> str:
    if question.kind in ("highest", "lowest") and question.threshold is not None:
        return "any"
    return question.kind


def opening(rng: Random, entries: tuple[Entry, ...], shares: dict[str, int] | None = None) -> tuple[Exchange, Question]:
    """The first turn: the list and a question about it."""
    text, question = ask(rng, entries, shares)
    header = rng.choice(_HEADERS) + "\n" if rng.random() < 0.8 else ""
    user = f"{header}{lines(entries)}\n{text}"
    return Exchange(user, answer(question, entries), f"readings.{_kind_name(question)}"), question


def next_question(
    rng: Random, entries: tuple[Entry, ...], shares: dict[str, int] | None = None
) -> tuple[Exchange, Question]:
    """A later turn about the list that stands for itself."""
    text, question = ask(rng, entries, shares)
    return Exchange(text, answer(question, entries), f"readings.{_kind_name(question)}"), question


def _other_place(rng: Random, entries: tuple[Entry, ...], question: Question) -> str:
    while (place := _place_for(rng, entries)) == question.place:
        pass
    return place


_AND_PLACE = ("and in the {p}?", "and the {p}?", "what about the {p}?", "and in the {p}", "the {p}?", "now the {p}")
_AND_EXTREME = {
    "highest": ("and the warmest?", "and the highest?", "and the hottest?", "what about the warmest?"),
    "lowest": ("and the coldest?", "and the lowest?", "and the coolest?", "what about the coldest?"),
}
_THAT_LIMIT = ("is that {l}?", "is it {l}?", "and is that {l}?")
_AND_LIMIT = ("and {l}?", "what about {l}?", "and {l}", "now {l}")


def follow_up(rng: Random, entries: tuple[Entry, ...], question: Question) -> tuple[Exchange, Question]:
    """A second turn that leans on the question before it."""
    threshold = some_threshold(rng, entries, rng.random() < 0.5)
    limit = _limit(rng, threshold)
    kind, place = question.kind, question.place
    if kind in ("list", "several", "where", "rank"):
        return next_question(rng, entries)
    if kind in ("value", "place_limit") and rng.random() < 0.65:
        place = _other_place(rng, entries, question)
        text, after, name = rng.choice(_AND_PLACE), Question(kind, place, question.threshold), "place"
    elif kind in ("value", "place_limit"):
        text, after, name = rng.choice(_THAT_LIMIT), Question("place_limit", place, threshold), "that_limit"
    elif question.threshold is None and rng.random() < 0.6:
        other = "lowest" if kind == "highest" else "highest"
        text, after, name = rng.choice(_AND_EXTREME[other]), Question(other), "extreme"
    elif question.threshold is None:
        text, after, name = rng.choice(_THAT_LIMIT), Question(kind, None, threshold), "that_limit"
    else:
        if kind in ("highest", "lowest"):
            kind = "highest" if threshold.above else "lowest"
        text, after, name = rng.choice(_AND_LIMIT), Question(kind, None, threshold), "limit"
    text = sentence_case(rng, text.format(p=place, l=limit))
    return Exchange(text, answer(after, entries), f"follow_up.readings.{name}"), after
