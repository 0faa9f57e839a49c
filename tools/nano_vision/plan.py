"""The plan of the training: sizes and schedule. Everything that decides the result is here."""

from __future__ import annotations

from dataclasses import dataclass

from nano import plan


@dataclass(frozen=True)
class Shape(plan.Shape):
    """A Phi-3 of head size hidden // heads behind a convolutional encoder of `channels` channels."""

    vocab: int = 640
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    inner: int = 320
    channels: int = 160


@dataclass(frozen=True)
class Schedule(plan.Schedule):
    """That of the text model, with a beginning in which only seeing is learnt."""

    steps: int = 6000
    decay_steps: int = 1800
    other_lr: float = 0.003
    seeing_steps: int = 300  # before all: the encoder alone, from what stands where
    easy_steps: int = 700  # until then mostly scenes with little in them
    seeing: float = 0.5  # weight of the loss that teaches the encoder alone what stands where


ROWS_SEEING = 24  # pictures of a batch for the encoder alone
ROWS_ONE = 8  # rows of a batch with one picture each
ROWS_TWO = 5  # rows of a batch with two
LENGTH_ONE = 320 + 160  # tokens of a row
LENGTH_TWO = 640 + 96
QUESTIONS_ONE = 9
QUESTIONS_TWO = 3
TWO_SHARE = 0.45  # of the batches
