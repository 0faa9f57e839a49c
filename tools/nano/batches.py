"""Packs conversations into rows of a fixed length, without padding to speak of."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

from nano.mixture import Stage, training_conversation
from nano.recall import RecallRows
from nano.tokenizer import ChatEncoder

Packed = tuple[list[int], list[bool], list[int]]  # ids, wanted, number of the conversation


class Packer:
    """Draws conversations and fills rows with them; owns the pool of conversations not yet placed."""

    def __init__(self, encoder: ChatEncoder, recall: RecallRows, seed: str, row_tokens: int) -> None:
        self._encoder = encoder
        self._recall = recall
        self._rng = Random(seed)
        self._row_tokens = row_tokens
        self._pool: list[tuple[list[int], list[bool]]] = []

    def _row(self, stage: Stage) -> Packed:
        if self._rng.random() < stage.recall:
            recall_ids, recall_wanted = self._recall.row(self._rng)
            return recall_ids, recall_wanted, [0] * len(recall_ids)
        while len(self._pool) < 64:
            ids, wanted = self._encoder.training_ids(training_conversation(self._rng, stage))
            if len(ids) <= self._row_tokens:
                self._pool.append((ids, wanted))
        row: Packed = ([], [], [])
        while True:
            free = self._row_tokens - len(row[0])
            if not row[0]:
                choice = 0
            else:
                fitting = [(len(ids), at) for at, (ids, _) in enumerate(self._pool) if len(ids) <= free]
                if not fitting:
                    break
                choice = max(fitting)[1] if free < 160 else min(at for _, at in fitting)
            ids, wanted = self._pool.pop(choice)
            number = row[2][-1] + 1 if row[2] else 0
            row[0].extend(ids)
            row[1].extend(wanted)
            row[2].extend([number] * len(ids))
        return row

    def batch(self, stage: Stage, rows: int, shared_history: float) -> tuple[Tensor, Tensor, Tensor]:
        """ids [rows, T], mask [rows, 1, T, T], wanted [rows, T]: which tokens are to be predicted.

        In a share of the rows the conversations see what went before them, as in a long chat.
        """
        length = self._row_tokens
        ids = torch.zeros(rows, length, dtype=torch.long)
        wanted = torch.zeros(rows, length, dtype=torch.bool)
        numbers = torch.full((rows, length), -1)
        for at in range(rows):
            row_ids, row_wanted, row_numbers = self._row(stage)
            ids[at, : len(row_ids)] = torch.tensor(row_ids)
            wanted[at, : len(row_ids)] = torch.tensor(row_wanted)
            if self._rng.random() >= shared_history:
                numbers[at, : len(row_ids)] = torch.tensor(row_numbers)
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = (numbers[:, None, :, None] == numbers[:, None, None, :]) & causal
        return ids, mask, wanted
