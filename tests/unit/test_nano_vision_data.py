"""The generated scenes of the nano vision model: right answers, held-out scenes that training never draws."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from nano_vision.drawing import draw, some_look
from nano_vision.questions import SKILLS, count, describe, find, held_out, one_picture, read, two_pictures
from nano_vision.scenes import PLACES, Scene, Thing, changed, some_scene, split_of

THREE = Scene((Thing(0, "circle", "red"), Thing(4, "circle", "blue"), Thing(8, "ring", "red")))


def test_training_never_draws_what_is_held_out() -> None:
    rng = Random(1)
    for _ in range(300):
        assert split_of(one_picture(rng, 0).scenes[0]) == "train"
        assert {split_of(scene) for scene in two_pictures(rng, "train", 1).scenes} == {"train"}


@pytest.mark.parametrize("skill", SKILLS)
def test_held_out_cases_are_held_out_and_fixed(skill: str) -> None:
    cases = held_out(skill, 40)
    assert all(split_of(case.scenes[0]) == "eval" for case in cases)
    assert cases == held_out(skill, 40)
    assert cases != held_out(skill, 40, seed=1)


def test_a_description_names_everything_in_reading_order() -> None:
    said = describe(Random(1), THREE).answer
    assert said == "A red circle at the top left. A blue circle in the center. A red ring at the bottom right."
    assert describe(Random(1), Scene((), display="42.5")).answer == "A display that reads 42.5."


def test_counts_are_right() -> None:
    right = {
        "shapes": "red circle 1, blue circle 2, red ring 3: 3",
        "circles": "red circle 1, blue circle 2, red ring: 2",
        "rings": "red circle, blue circle, red ring 1: 1",
        "red shapes": "red circle 1, blue circle, red ring 2: 2",
        "blue shapes": "red circle, blue circle 1, red ring: 1",
        "red circles": "red circle 1, blue circle, red ring: 1",
        "squares": "red circle, blue circle, red ring: 0",
    }
    seen = set()
    for seed in range(400):
        exchange = count(Random(seed), THREE)
        for what, answer in right.items():
            if exchange.question.lower().split("how many ")[-1].split("count the ")[-1].rstrip("?.").startswith(what):
                assert exchange.answer == answer, exchange
                seen.add(what)
    assert seen == set(right)


def test_places_are_right() -> None:
    asked = {exchange.question: exchange.answer for exchange in (find(Random(seed), THREE) for seed in range(200))}
    assert asked["Where is the blue circle?"] == "In the center."
    assert asked["What is at the bottom right?"] == "A red ring."
    assert asked["What is at the top?"] == "Nothing."


def test_instruments_are_read() -> None:
    assert read(Random(1), Scene((), gauge=70)).answer == "70"
    assert read(Random(1), Scene((), display="0.7")).answer == "0.7"


def test_what_changed_is_what_is_said() -> None:
    rng = Random(3)
    for _ in range(400):
        scene = some_scene(rng, "train")
        later, said = changed(rng, scene)
        before, after = set(scene.things), set(later.things)
        if said == "Nothing changed.":
            assert later == scene
        elif "was added" in said:
            assert len(after - before) == 1
            assert not before - after
        elif "is gone" in said:
            assert len(before - after) == 1
            assert not after - before
        elif "went from" in said:
            shown = later.display if later.display is not None else later.gauge
            assert said.endswith(f" to {shown}.")
        else:
            (old,), (new,) = before - after, after - before
            assert f"The {old.name}" in said
            end = f"turned {new.colour}." if old.place == new.place else f"to the {PLACES[new.place]}."
            assert said.endswith(end)


def test_two_exposures_of_one_scene_differ_in_little() -> None:
    look = some_look(Random(5))
    first, again, next_one = (np.asarray(draw(THREE, look, number), dtype=int) for number in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_one)
    assert np.abs(first - next_one).mean() < 12
