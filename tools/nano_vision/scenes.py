"""Generated scenes: what is in a picture, as plain facts. Nothing here draws.

A scene has shapes in the cells of a 3 × 3 grid, or a seven-segment display or a round gauge in its middle with shapes
above or below. Which scenes are held out is decided by their content alone, so that training never draws one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

Split = Literal["train", "eval"]

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (214, 40, 40),
    "green": (38, 150, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 205, 30),
    "purple": (140, 50, 170),
    "black": (25, 25, 28),
}
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
MIDDLE_ROW = (3, 4, 5)
HELD_OUT_ONE_IN = 8


@dataclass(frozen=True, order=True)
class Thing:
    """One shape; `place` is its cell, 0 (top left) to 8 (bottom right)."""

    place: int
    shape: str
    colour: str

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """`things` in reading order; `display` is what a seven-segment display shows, `gauge` where a needle stands (0–100,
    in tens); at most one of the two."""

    things: tuple[Thing, ...]
    display: str | None = None
    gauge: int | None = None

    @property
    def instrument(self) -> bool:
        return self.display is not None or self.gauge is not None


def where(place: int) -> str:
    """ "at the top left", "in the center"."""
    name = PLACES[place]
    return f"{'in' if name == 'center' else 'on' if name in ('left', 'right') else 'at'} the {name}"


def split_of(scene: Scene) -> Split:
    """Held out or not. Displays are told apart by their number, other scenes by the whole of their shapes."""
    key = scene.display or repr((scene.things, scene.gauge))
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
    few = scene.display is None and len(scene.things) + scene.instrument < 2  # too few there are to hold any back
    return "eval" if number % HELD_OUT_ONE_IN == 0 and not few else "train"


def some_scene(rng: Random, split: Split, kind: str | None = None, *, easy: bool = False) -> Scene:
    """A scene of the split; `kind` is `shapes`, `display`, `gauge` or any. `easy`: mostly with little in it."""
    while True:
        chosen = kind or rng.choices(("shapes", "display", "gauge"), (6, 3, 2))[0]
        scene = _draw(rng, chosen, easy=easy)
        if split_of(scene) == split:
            return scene


def _draw(rng: Random, kind: str, *, easy: bool) -> Scene:
    if kind == "shapes":
        shares = (8, 5, 2, 1, 0) if easy else (3, 4, 4, 3, 2)
        return Scene(_things(rng, rng.choices((1, 2, 3, 4, 5), shares)[0], tuple(range(9))))
    free = tuple(place for place in range(9) if place not in MIDDLE_ROW) if kind == "display" else (0, 2, 6, 8)
    things = _things(rng, rng.choices((0, 1, 2), (4, 3, 2))[0], free)
    if kind == "display":
        return Scene(things, display=some_number(rng, easy=easy))
    return Scene(things, gauge=10 * rng.randint(0, 10))


def some_number(rng: Random, *, easy: bool = False) -> str:
    """One to four digits, perhaps with one decimal."""
    digits = rng.choices((1, 2, 3, 4), (6, 5, 2, 1) if easy else (1, 3, 4, 3))[0]
    text = "".join(rng.choice("0123456789") for _ in range(digits))
    return f"{text[:-1]}.{text[-1]}" if digits > 1 and rng.random() < 0.5 else text


def _things(rng: Random, count: int, free: tuple[int, ...]) -> tuple[Thing, ...]:
    places = rng.sample(free, count)
    alike = rng.random() < 0.35  # so that there is something to count
    shapes = [rng.choice(SHAPES) for _ in range(1 if alike and rng.random() < 0.5 else 5)]
    colours = [rng.choice(tuple(COLOURS)) for _ in range(1 if alike and len(shapes) > 1 else 6)]
    return tuple(sorted(Thing(place, rng.choice(shapes), rng.choice(colours)) for place in places))


def changed(rng: Random, scene: Scene) -> tuple[Scene, str]:
    """The same place a little later, and what changed, in words."""
    options = ["nothing"]
    taken = {thing.place for thing in scene.things}
    free = [place for place in range(9) if place not in taken]
    if scene.display is not None:
        options += ["display"] * 3
        free = [place for place in free if place not in MIDDLE_ROW]
    elif scene.gauge is not None:
        options += ["gauge"] * 3
        free = [place for place in free if place in (0, 2, 6, 8)]
    if scene.things:
        options += ["colour", "removed", "moved"]
    if free:
        options.append("added")
    kind = rng.choice(options)
    if kind == "display":
        number = some_number(rng)
        if number == scene.display:
            return scene, "Nothing changed."
        return replace(scene, display=number), f"The display went from {scene.display} to {number}."
    if kind == "gauge":
        value = 10 * rng.randint(0, 10)
        if value == scene.gauge:
            return scene, "Nothing changed."
        return replace(scene, gauge=value), f"The gauge went from {scene.gauge} to {value}."
    if kind == "added":
        new = Thing(rng.choice(free), rng.choice(SHAPES), rng.choice(tuple(COLOURS)))
        return _with(scene, (*scene.things, new)), f"A {new.name} was added {where(new.place)}."
    if kind == "nothing":
        return scene, "Nothing changed."
    old = rng.choice(scene.things)
    others = tuple(thing for thing in scene.things if thing != old)
    if kind == "colour":
        new = replace(old, colour=rng.choice([colour for colour in COLOURS if colour != old.colour]))
        return _with(scene, (*others, new)), f"The {old.name} {where(old.place)} turned {new.colour}."
    if kind == "moved" and free:
        new = replace(old, place=rng.choice(free))
        said = f"The {old.name} moved from the {PLACES[old.place]} to the {PLACES[new.place]}."
        return _with(scene, (*others, new)), said
    return _with(scene, others), f"The {old.name} {where(old.place)} is gone."


def _with(scene: Scene, things: tuple[Thing, ...]) -> Scene:
    return replace(scene, things=tuple(sorted(things)))
