"""Cases to tensors: pictures, token ids, who may look at what, and what is to be predicted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor

from edged.engine.images.crops import MEAN, STD, scaled
from nano_vision.drawing import draw
from nano_vision.model import CELLS, GRID, IMAGE_TOKENS, PLACES, SEEN
from nano_vision.questions import Case, Exchange, one_picture, two_pictures
from nano_vision.scenes import COLOURS, SHAPES, Scene

IGNORED = -100
_MEAN, _STD = torch.from_numpy(MEAN), torch.from_numpy(STD)


@dataclass
class Batch:
    """`pictures` [n, 336, 336, 3] are bytes; `seen` holds, for each cell of each picture, the class of each thing of
    model.SEEN, or IGNORED."""

    pictures: Tensor
    ids: Tensor
    positions: Tensor
    mask: Tensor
    wanted: Tensor
    seen: dict[str, Tensor]

    @property
    def pixels(self) -> Tensor:
        """[n, 3, 336, 336], normalised as edged/engine/images/crops.py does it."""
        return ((self.pictures / 255.0 - _MEAN) / _STD).permute(0, 3, 1, 2)


def picture_bytes(image: Image.Image) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """[336, 336, 3] of the one-crop form: the picture as a whole."""
    return np.asarray(scaled(image, 1))


class CaseEncoder:
    """Token ids of cases as the chat template and the backend give them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}
        self.newline = self.text("\n")
        self.user = [self._id("<|user|>"), *self.newline]
        self.asked = [self._id("<|end|>"), *self.newline, self._id("<|assistant|>"), *self.newline]
        self.end = self._id("<|end|>")

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"the tokenizer has no token {token}")
        return int(number)

    def text(self, text: str) -> list[int]:
        """Plain text."""
        if text not in self._cache:
            self._cache[text] = list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return self._cache[text]

    def image(self, number: int) -> list[int]:
        """The tokens of a prompt's n-th picture (from 1) and the line break behind it."""
        return [-number] * IMAGE_TOKENS + self.newline

    def exchange(self, exchange: Exchange) -> tuple[list[int], int]:
        """Question and answer, and how many of the ids are the question."""
        question = self.text(exchange.question) + self.asked
        return question + self.text(exchange.answer) + [self.end], len(question)


class Rows:
    """Draws cases and lays them into rows; owns its random numbers."""

    def __init__(self, encoder: CaseEncoder, seed: str) -> None:
        self._encoder = encoder
        self._rng = Random(seed)

    def batch(self, pictures: int, rows: int, length: int, questions: int, *, easy: bool) -> Batch:
        """`rows` rows of `length` tokens with `pictures` pictures each (1 or 2) and about `questions` questions."""
        draw_case = one_picture if pictures == 1 else partial(two_pictures, split="train")
        ids = torch.zeros(rows, length, dtype=torch.long)
        positions = torch.zeros(rows, length, dtype=torch.long)
        branch = torch.full((rows, length), -1)
        wanted = torch.zeros(rows, length, dtype=torch.bool)
        images: list[np.ndarray[Any, Any]] = []
        labels: list[dict[str, np.ndarray[Any, Any]]] = []
        for row in range(rows):
            case = draw_case(self._rng, questions=questions, easy=easy and self._rng.random() < 0.8)
            for number, scene in enumerate(case.scenes):
                image = draw(scene, case.look, number)
                images.append(picture_bytes(image))
                labels.append(_seen(scene, case, image))
            for at, values in enumerate(self._layout(case, length)):
                (ids, positions, branch, wanted)[at][row, : len(values)] = torch.tensor(values)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        own = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
        mask = (own & causal)[:, None]
        seen = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]}
        return Batch(torch.from_numpy(np.stack(images)), ids, positions, mask, wanted, seen)

    def seeing_batch(self, rows: int) -> Batch:
        """Pictures and what stands where in them, without a word."""
        cases = [one_picture(self._rng, 0) for _ in range(rows)]
        pictures = [draw(case.scenes[0], case.look) for case in cases]
        labels = [_seen(case.scenes[0], case, image) for case, image in zip(cases, pictures, strict=True)]
        seen = {name: torch.from_numpy(np.stack([label[name] for label in labels])) for name in labels[0]}
        none = torch.zeros(0, dtype=torch.long)
        stacked = torch.from_numpy(np.stack([picture_bytes(image) for image in pictures]))
        return Batch(stacked, none, none, none, none, seen)

    def _layout(self, case: Case, length: int) -> tuple[list[int], list[int], list[int], list[bool]]:
        """ids, positions, branch (0: seen by all that follows), wanted.

        Each question is the first that is asked of the pictures, beside the others; in a share of the rows they follow
        each other as in a conversation, and there the second picture may come in a later turn.
        """
        encoder, rng = self._encoder, self._rng
        talk = rng.random() < 0.3
        ids, wanted = list(encoder.user), [False] * len(encoder.user)
        late = talk and len(case.scenes) == 2 and rng.random() < 0.5
        for number in range(1, len(case.scenes) + 1):
            if number == 2 and late:
                first = Exchange("describe", "what is this?", _said(case.scenes[0]))
                turn, question = encoder.exchange(first)
                ids += turn + encoder.newline + encoder.user
                wanted += [False] * question + [True] * (len(turn) - question)
                wanted += [False] * (len(ids) - len(wanted))
            ids += encoder.image(number)
            wanted += [False] * (len(ids) - len(wanted))
        branch, positions = [0] * len(ids), list(range(len(ids)))
        start = len(ids)
        for number, exchange in enumerate(case.exchanges, 1):
            turn, question = encoder.exchange(exchange)
            lead = encoder.newline + encoder.user if talk and number > 1 else []
            if len(ids) + len(lead) + len(turn) > length:
                break
            at = len(ids) if talk else start
            ids += lead + turn
            added = len(lead) + len(turn)
            positions += range(at, at + added)
            branch += [0 if talk else number] * added
            wanted += [False] * (len(lead) + question) + [True] * (len(turn) - question)
        return ids, positions, branch, wanted


def _said(scene: Scene) -> str:
    from nano_vision.questions import describe

    return describe(Random(0), scene).answer


def _seen(scene: Scene, case: Case, image: Image.Image) -> dict[str, np.ndarray[Any, Any]]:
    """Classes by the names of model.SEEN. Of cells and columns only those that show a thing's middle say what it is,
    those far from all say nothing, and the others are not asked."""
    digits = [mark for mark in scene.display or "" if mark != "."]
    labels = {name: np.zeros(CELLS, dtype=np.int64) for name in SEEN if name.startswith("cell")}
    labels |= {name: np.zeros(PLACES, dtype=np.int64) for name in SEEN if name.startswith("place")}
    labels |= {name: np.zeros(GRID, dtype=np.int64) for name in SEEN if name.startswith("column")}
    labels["whole_digits"] = np.array([len(digits)])
    labels["whole_point"] = np.array([int("." in (scene.display or ""))])
    labels["whole_gauge"] = np.array([0 if scene.gauge is None else scene.gauge // 10 + 1])
    labels["whole_things"] = np.array([min(len(scene.things), SEEN["whole_things"] - 1)])
    long = max(image.size)
    spread = (image.width / long, image.height / long)  # the rest is white
    unit, shift = min(spread), case.look.shift
    middles = (np.arange(GRID) + 0.5) / GRID

    def distances(x: float, y: float) -> np.ndarray[Any, Any]:
        """Of each cell from a point of the picture."""
        cx, cy = 0.5 + (x + shift[0] - 0.5) * spread[0], 0.5 + (y + shift[1] - 0.5) * spread[1]
        return np.hypot(middles[None, :] - cx, middles[:, None] - cy).reshape(-1)

    for thing in scene.things:
        far = distances((thing.place % 3 + 0.5) / 3, (thing.place // 3 + 0.5) / 3)
        for name, value in (("shape", SHAPES.index(thing.shape) + 1), ("colour", [*COLOURS].index(thing.colour) + 1)):
            cells = labels[f"cell_{name}"]
            cells[(far < 0.18 * unit + 0.06) & (cells == 0)] = IGNORED
            cells[far < 0.06 * unit + 0.02] = value
            labels[f"place_{name}"][thing.place] = value
    if digits:
        labels["cell_digit"][distances(0.5, 0.5) < 0.45] = IGNORED
        pitch = 0.105 * case.look.scale * 1.75 * unit  # of the longer side
        start = 0.5 + shift[0] * spread[0]
        for number, digit in enumerate(digits):
            x = start + (number + 0.5 - len(digits) / 2) * pitch
            near = np.hypot(middles[None, :] - x, middles[:, None] - 0.5 - shift[1] * spread[1]).reshape(-1)
            labels["cell_digit"][near < 0.045] = int(digit) + 1
            off = np.abs(middles - x)
            for name, value in (("digit", int(digit) + 1), ("order", number + 1)):
                columns = labels[f"column_{name}"]
                columns[(off < 0.75 * pitch) & (columns == 0)] = IGNORED
                columns[off < 0.3 * pitch] = value
    return labels
