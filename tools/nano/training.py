"""The training loop: resumable, with checkpoints and scores on held-out cases as it goes."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
import torch._inductor.config
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from nano.batches import Packer
from nano.mixture import SKILLS, held_out_set
from nano.model import NanoModel
from nano.plan import ROW_TOKENS, ROWS, Schedule, Shape, stage_at
from nano.recall import RecallRows
from nano.runs import Checkpointed
from nano.threads import ThreadChooser
from nano.tokenizer import ChatEncoder, build_tokenizer, save_tokenizer

CHUNK_STEPS = 100  # data is reseeded and a checkpoint written each time so many steps are done
_SCORED_PER_SKILL = 120


def load_or_build_tokenizer(folder: Path, seed: int, vocab: int) -> Tokenizer:
    """The tokenizer of the run; made when the folder has none yet."""
    path = folder / "tokenizer.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_tokenizer(build_tokenizer(seed, vocab), folder)
    return Tokenizer.from_file(str(path))


def new_model(tokenizer: Tokenizer, shape: Shape, seed: int) -> NanoModel:
    """A fresh model for the tokenizer's vocabulary."""
    torch.manual_seed(seed)
    return NanoModel(tokenizer.get_vocab_size(), shape.hidden, shape.layers, shape.heads, shape.inner)


@torch.no_grad()
def score(model: NanoModel, encoder: ChatEncoder, per_skill: int, seed: int = 1) -> dict[str, float]:
    """Percent of held-out answers in which every token is the model's first choice, that is exact match when greedy."""
    right: dict[str, list[bool]] = defaultdict(list)
    for skill in SKILLS:
        cases = held_out_set(skill, per_skill, seed)
        packed = sorted(((*encoder.training_ids(case), case) for case in cases), key=lambda item: len(item[0]))
        for at in range(0, len(packed), 20):
            group = packed[at : at + 20]
            length = max(len(ids) for ids, _, _ in group)
            ids = torch.tensor([row + [0] * (length - len(row)) for row, _, _ in group])
            mask = torch.ones(length, length, dtype=torch.bool).tril().expand(len(group), 1, length, length)
            choice = model.lm_head(model.model(ids, mask)).argmax(-1)
            for row, (_, wanted, case) in enumerate(group):
                start = len(encoder.prompt_ids(case.prompt()))
                end = start + sum(wanted[start:])
                hit = bool((choice[row, start - 1 : end - 1] == ids[row, start:end]).all())
                right[skill].append(hit)
                right[case.exchanges[-1].kind].append(hit)
    return {name: round(100 * sum(hits) / len(hits), 1) for name, hits in right.items()}


class Run(Checkpointed[NanoModel, Schedule]):
    """One training run in a folder."""

    def __init__(self, folder: Path, seed: int, shape: Shape, schedule: Schedule, *, compiled: bool) -> None:
        self.tokenizer = load_or_build_tokenizer(folder, seed, shape.vocab)
        super().__init__(folder, seed, shape, schedule, new_model(self.tokenizer, shape, seed))
        self.encoder = ChatEncoder(self.tokenizer)
        self.recall = RecallRows(self.tokenizer, ROW_TOKENS)
        self.threads = ThreadChooser(torch.get_num_threads())
        torch._inductor.config.cpp.dynamic_threads = True
        self.trunk: Callable[[Tensor, Tensor], Tensor] = (
            torch.compile(self.model.model) if compiled else self.model.model
        )

    def _train_step(self, packer: Packer) -> float:
        threads, began = self.threads.choose(), time.monotonic()
        torch.set_num_threads(threads)
        self.set_rates()
        shared_history = 0.0 if self.step < 1200 else 0.1
        ids, mask, wanted = packer.batch(stage_at(self.step), ROWS, shared_history)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = self.trunk(ids, mask)
            logits = self.model.lm_head(hidden[:, :-1][wanted[:, 1:]])
        loss = F.cross_entropy(logits.float(), ids[:, 1:][wanted[:, 1:]])
        loss.backward()  # type: ignore[no-untyped-call]
        self.follow_gradients()
        self.threads.took(threads, time.monotonic() - began)
        return float(loss.detach())

    def train(self, minutes: float, report: Callable[[str], None]) -> bool:
        """Train for at most so many minutes. True when the whole schedule is done."""
        began = time.monotonic()
        while self.step < self.schedule.steps:
            chunk_began = time.monotonic()
            if (chunk_began - began) / 60 >= minutes:
                return False
            self.model.quantise(self.schedule.quantised(self.step))
            packer = Packer(self.encoder, self.recall, f"{self.seed}:{self.step}", ROW_TOKENS)
            count = min(CHUNK_STEPS, self.schedule.steps - self.step)
            losses = [self._train_step(packer) for _ in range(count)]
            took_s = time.monotonic() - chunk_began
            self.seconds += took_s
            self.save()
            tps = count * ROWS * ROW_TOKENS / took_s
            report(f"step {self.step} loss {sum(losses) / count:.4f} tok/s {tps:.0f} minutes {self.seconds / 60:.1f}")
            if self.step % (3 * CHUNK_STEPS) == 0 or self.step == self.schedule.steps:
                report(json.dumps(score(self.model, self.encoder, _SCORED_PER_SKILL)))
        return True
