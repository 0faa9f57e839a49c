"""Questions about scenes and their one right answer each: to describe, to count, to find, to read, to compare."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from nano_vision.drawing import Look, some_look
from nano_vision.scenes import COLOURS, PLACES, SHAPES, Scene, Split, Thing, changed, some_scene, split_of, where

SKILLS = ("describe", "count", "read", "compare", "find")

_DESCRIBE = (
    "what is this?", "What do you see?", "Describe the picture.", "What is in the picture?",
    "What does the camera see?",
)  # fmt: skip
_DISPLAY = ("What does the display read?", "Read the display.", "What number is shown?", "What is the reading?")
_GAUGE = ("What does the gauge show?", "Read the gauge.", "Where does the needle stand?", "What is the reading?")
_COMPARE = ("What changed?", "what changed?", "What is different?", "What changed between the two pictures?")


@dataclass(frozen=True)
class Exchange:
    """A question, the right answer, and the skill it asks for."""

    skill: str
    question: str
    answer: str


@dataclass(frozen=True)
class Case:
    """One or two exposures under one look, and exchanges about them: the last picture is what is asked about."""

    scenes: tuple[Scene, ...]
    look: Look
    exchanges: tuple[Exchange, ...]


def describe(rng: Random, scene: Scene) -> Exchange:
    """All that is there, in reading order, the instrument first."""
    parts = []
    if scene.display is not None:
        parts.append(f"A display that reads {scene.display}.")
    if scene.gauge is not None:
        parts.append(f"A gauge at {scene.gauge}.")
    parts += [f"A {thing.name} {where(thing.place)}." for thing in scene.things]
    return Exchange("describe", rng.choice(_DESCRIBE), " ".join(parts))


def count(rng: Random, scene: Scene) -> Exchange:
    """How many shapes of a kind, of a colour, or of both: counted aloud, the number last."""
    thing = rng.choice(scene.things) if scene.things and rng.random() < 0.7 else None
    shape = thing.shape if thing else rng.choice(SHAPES)
    colour = thing.colour if thing else rng.choice(tuple(COLOURS))
    kind = rng.randrange(4)
    if kind == 0:
        what, meant = "shapes", set(scene.things)
    elif kind == 1:
        what, meant = _plural(shape), _those(scene, shape=shape)
    elif kind == 2:
        what, meant = f"{colour} shapes", _those(scene, colour=colour)
    else:
        what, meant = f"{colour} {_plural(shape)}", _those(scene, shape=shape, colour=colour)
    form = rng.choice(("How many {} are there?", "How many {} do you see?", "Count the {}."))
    aloud, number = [], 0
    for other in scene.things:
        number += other in meant
        aloud.append(f"{other.name} {number}" if other in meant else other.name)
    return Exchange("count", form.format(what), f"{', '.join(aloud)}: {number}" if aloud else "0")


def _those(scene: Scene, **alike: str) -> set[Thing]:
    return {thing for thing in scene.things if all(getattr(thing, name) == value for name, value in alike.items())}


def find(rng: Random, scene: Scene) -> Exchange:
    """What is at a place, and where a thing is that is there once."""
    names = [thing.name for thing in scene.things]
    single = [thing for thing in scene.things if names.count(thing.name) == 1]
    if single and rng.random() < 0.5:
        thing = rng.choice(single)
        said = where(thing.place)
        return Exchange("find", f"Where is the {thing.name}?", f"{said[0].upper()}{said[1:]}.")
    place = rng.choice(scene.things).place if scene.things and rng.random() < 0.7 else rng.randrange(9)
    there = next((thing for thing in scene.things if thing.place == place), None)
    if there is None and scene.instrument and place in (1, 3, 4, 5, 7):
        return describe(rng, scene)
    return Exchange("find", f"What is {where(place)}?", f"A {there.name}." if there else "Nothing.")


def read(rng: Random, scene: Scene) -> Exchange:
    """What the instrument shows."""
    if scene.display is not None:
        return Exchange("read", rng.choice(_DISPLAY), f"{scene.display}")
    return Exchange("read", rng.choice(_GAUGE), f"{scene.gauge}")


def about_one(rng: Random, scene: Scene, skill: str | None = None) -> Exchange:
    """Some question about one picture."""
    if skill is None:
        skills, shares = (("read", "describe", "count", "find"), (5, 3, 1, 2)) if scene.instrument else (
            ("describe", "count", "find"), (2, 4, 3)
        )  # fmt: skip
        skill = rng.choices(skills, shares)[0]
    return {"describe": describe, "count": count, "find": find, "read": read}[skill](rng, scene)


def one_picture(rng: Random, questions: int, *, easy: bool = False) -> Case:
    """A training case with one picture."""
    scene = some_scene(rng, "train", easy=easy)
    return Case((scene,), some_look(rng), tuple(about_one(rng, scene) for _ in range(questions)))


def two_pictures(rng: Random, split: Split, questions: int, *, easy: bool = False) -> Case:
    """Two pictures of one place and what changed; both scenes are of the split."""
    while True:
        first = some_scene(rng, split, easy=easy)
        second, said = changed(rng, first)
        if split_of(second) == split or split == "eval":
            break
    asked = [Exchange("compare", rng.choice(_COMPARE), said)]
    asked += [about_one(rng, second) for _ in range(questions - 1)]
    return Case((first, second), some_look(rng), tuple(asked))


def held_out(skill: str, number: int, seed: int = 0) -> list[Case]:
    """The fixed held-out cases of a skill: one question each."""
    rng = Random(f"{seed}:{skill}")
    cases = []
    for _ in range(number):
        if skill == "compare":
            cases.append(two_pictures(rng, "eval", 1))
            continue
        kind = rng.choices(("display", "gauge"), (3, 2))[0] if skill == "read" else None
        if skill == "count":
            kind = "shapes"
        scene = some_scene(rng, "eval", kind)
        cases.append(Case((scene,), some_look(rng), (about_one(rng, scene, skill),)))
    return cases


def vocabulary_texts(seed: int, number: int) -> list[str]:
    """Texts that hold every word of the questions and answers."""
    rng = Random(f"{seed}:words")
    texts = [*(f"{colour} {shape} {_plural(shape)}" for colour in COLOURS for shape in SHAPES), *PLACES]
    for _ in range(number):
        case = two_pictures(rng, "train", 4)
        texts += [text for exchange in case.exchanges for text in (exchange.question, exchange.answer)]
    return texts


def _plural(shape: str) -> str:
    return f"{shape}es" if shape == "cross" else f"{shape}s"
