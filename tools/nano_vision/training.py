"""The training loop: resumable, with checkpoints and scores on held-out cases as it goes."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch._inductor.config
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from edged.engine.images.crops import pixel_values, scaled
from nano.runs import Checkpointed
from nano.tokenizer import save_tokenizer, tokenizer_of
from nano_vision import plan
from nano_vision.batches import IGNORED, Batch, CaseEncoder, Rows
from nano_vision.drawing import draw
from nano_vision.model import Features, NanoVision
from nano_vision.plan import Schedule, Shape
from nano_vision.questions import SKILLS, Case, held_out, vocabulary_texts

CHUNK_STEPS = 50
_AHEAD = 4  # batches drawn beforehand


def load_or_build_tokenizer(folder: Path, seed: int, vocab: int) -> Tokenizer:
    """The tokenizer of the run; made when the folder has none yet."""
    path = folder / "tokenizer.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_tokenizer(tokenizer_of(vocabulary_texts(seed, 4000), vocab), folder)
    return Tokenizer.from_file(str(path))


def new_model(tokenizer: Tokenizer, shape: Shape, seed: int) -> NanoVision:
    """A fresh model for the tokenizer's vocabulary."""
    torch.manual_seed(seed)
    return NanoVision(Shape(**{**asdict(shape), "vocab": tokenizer.get_vocab_size()}))


@torch.no_grad()
def score(model: NanoVision, encoder: CaseEncoder, per_skill: int, seed: int = 1) -> dict[str, float]:
    """Percent of held-out answers in which every token is the model's first choice, that is exact match when greedy."""
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    for skill in SKILLS:
        for case in held_out(skill, per_skill, seed):
            right[skill].append(_is_right(model, encoder, case))
    model.train()
    return {name: round(100 * sum(hits) / len(hits), 1) for name, hits in right.items()}


def _is_right(model: NanoVision, encoder: CaseEncoder, case: Case) -> bool:
    head = [*encoder.user]
    for number in range(1, len(case.scenes) + 1):
        head += encoder.image(number)
    turn, question = encoder.exchange(case.exchanges[0])
    ids = torch.tensor([head + turn])
    length = ids.shape[1]
    images = [draw(scene, case.look, at) for at, scene in enumerate(case.scenes)]
    pixels = torch.from_numpy(np.stack([pixel_values(scaled(image, 1))[0] for image in images]))
    mask = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    hidden, _ = model(pixels, ids, torch.arange(length)[None], mask)
    start = len(head) + question
    choice = model.lm_head(hidden[0, start - 1 : -1]).argmax(-1)
    return bool((choice == ids[0, start:]).all())


class Run(Checkpointed[NanoVision, Schedule]):
    """One training run in a folder."""

    def __init__(self, folder: Path, seed: int, shape: Shape, schedule: Schedule, *, compiled: bool) -> None:
        self.tokenizer = load_or_build_tokenizer(folder, seed, shape.vocab)
        super().__init__(folder, seed, shape, schedule, new_model(self.tokenizer, shape, seed))
        self.encoder = CaseEncoder(self.tokenizer)
        torch._inductor.config.cpp.dynamic_threads = True
        self.forward: Callable[..., tuple[Tensor, dict[str, Tensor]]] = (
            torch.compile(self.model, dynamic=False) if compiled else self.model
        )
        self.encoder_alone: Callable[[Tensor], Features] = (
            torch.compile(self.model.encoder) if compiled else self.model.encoder
        )

    def _train_step(self, batch: Batch) -> tuple[float, float]:
        self.set_rates()
        pixels = batch.pixels.contiguous(memory_format=torch.channels_last)
        loss = torch.zeros(())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if batch.ids.numel():
                hidden, seen = self.forward(pixels, batch.ids, batch.positions, batch.mask)
                logits = self.model.lm_head(hidden[:, :-1][batch.wanted[:, 1:]])
                loss = F.cross_entropy(logits.float(), batch.ids[:, 1:][batch.wanted[:, 1:]])
            else:
                seen = self.model.see(self.encoder_alone(pixels))
        sight = sum(
            (F.cross_entropy(seen[name].float().flatten(0, 1), batch.seen[name].flatten(), ignore_index=IGNORED))
            for name in seen
        )
        (loss + self.schedule.seeing * sight).backward()
        self.follow_gradients()
        return float(loss.detach()), float(sight.detach())  # type: ignore[union-attr]

    def _batches(self, count: int) -> Callable[[], Batch]:
        """A thread draws the pictures of the next steps while this one computes."""
        ready: queue.Queue[Batch] = queue.Queue(_AHEAD)
        rows = Rows(self.encoder, f"{self.seed}:{self.step}")
        first = self.step
        order = Random(f"{self.seed}:{self.step}:order")

        def work() -> None:
            for step in range(first, first + count):
                easy = step < self.schedule.easy_steps
                if step < self.schedule.seeing_steps:
                    ready.put(rows.seeing_batch(plan.ROWS_SEEING))
                elif order.random() < plan.TWO_SHARE:
                    ready.put(rows.batch(2, plan.ROWS_TWO, plan.LENGTH_TWO, plan.QUESTIONS_TWO, easy=easy))
                else:
                    ready.put(rows.batch(1, plan.ROWS_ONE, plan.LENGTH_ONE, plan.QUESTIONS_ONE, easy=easy))

        threading.Thread(target=work, daemon=True).start()
        return ready.get

    def train(
        self, minutes: float, report: Callable[[str], None], *, fit: bool = False, scored_every: int = 1000
    ) -> bool:
        """Train for at most so many minutes; with `fit` the schedule is made to end with them. True when it is done."""
        began = time.monotonic()
        while self.step < self.schedule.steps:
            chunk_began = time.monotonic()
            if (chunk_began - began) / 60 >= minutes:
                return False
            self.model.quantise(self.schedule.quantised(self.step))
            count = min(CHUNK_STEPS, self.schedule.steps - self.step)
            next_batch = self._batches(count)
            losses = [self._train_step(next_batch()) for _ in range(count)]
            took_s = time.monotonic() - chunk_began
            if fit and self.step < self.schedule.steps:
                left_s = minutes * 60 - (time.monotonic() - began)
                self.schedule = replace(self.schedule, steps=self.step + max(1, int(left_s / (took_s / count))))
            self.seconds += took_s
            self.save()
            loss, sight = (sum(column) / count for column in zip(*losses, strict=True))
            report(
                f"step {self.step} loss {loss:.4f} seeing {sight:.4f} s/step {took_s / count:.2f} "
                f"minutes {self.seconds / 60:.1f} of {self.schedule.steps} steps"
            )
            if self.step % scored_every == 0 or self.step == self.schedule.steps:
                report(json.dumps(score(self.model, self.encoder, 60)))
        return True


def state_of(folder: Path) -> dict[str, Any]:
    """Step and minutes of the run in a folder."""
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    return {"step": saved["step"], "minutes": round(saved["seconds"] / 60, 1)}
