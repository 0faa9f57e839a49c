"""The plan of the training: sizes and schedule. Everything that decides the result is here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A Phi-3 of head size hidden // heads behind a convolutional encoder of `channels` channels."""

    vocab: int = 640
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 320
    channels: int = 160


@dataclass(frozen=True)
class Schedule:
    """Warm-up, plateau, linear decay to zero. Int4 rounding is trained from the start of the decay."""

    steps: int = 6000
    decay_steps: int = 1800
    warmup_steps: int = 60
    matrix_lr: float = 0.01
    embedding_lr: float = 0.01
    other_lr: float = 0.003
    seeing_steps: int = 300  # before all: the encoder alone, from what stands where
    easy_steps: int = 700  # until then mostly scenes with little in them
    seeing: float = 0.5  # weight of the loss that teaches the encoder alone what stands where

    def factor(self, step: int) -> float:
        """The share of the full learning rate at a step."""
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, (self.steps - step) / self.decay_steps))

    def quantised(self, step: int) -> bool:
        """Whether int4 rounding is on at a step."""
        return step >= self.steps - self.decay_steps


ROWS_SEEING = 24  # pictures of a batch for the encoder alone
ROWS_ONE = 8  # rows of a batch with one picture each
ROWS_TWO = 5  # rows of a batch with two
LENGTH_ONE = 320 + 160  # tokens of a row
LENGTH_TWO = 640 + 96
QUESTIONS_ONE = 9
QUESTIONS_TWO = 3
TWO_SHARE = 0.35  # of the batches
