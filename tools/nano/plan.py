"""The plan of the training: sizes, curriculum and schedule. Everything that decides the result is here."""

from __future__ import annotations

from dataclasses import dataclass

from nano.mixture import Stage


@dataclass(frozen=True)
class Shape:
    """The Phi-3 shape; head_dim is hidden // heads."""

    vocab: int = 1600
    hidden: int = 192
    layers: int = 6
    heads: int = 6
    inner: int = 512


@dataclass(frozen=True)
class Schedule:
    """Warm-up, plateau, linear decay to zero. Int4 rounding is trained from the start of the decay."""

    steps: int = 6000
    decay_steps: int = 1800
    warmup_steps: int = 60
    matrix_lr: float = 0.02
    other_lr: float = 0.003

    def factor(self, step: int) -> float:
        """The share of the full learning rate at a step."""
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, (self.steps - step) / self.decay_steps))

    def quantised(self, step: int) -> bool:
        """Whether int4 rounding is on at a step."""
        return step >= self.steps - self.decay_steps


ROW_TOKENS = 256
ROWS = 16

_COPYING = {"value": 50, "list": 20, "which": 15, "highest": 8, "lowest": 7}
CURRICULUM: tuple[Stage, ...] = (
    # Copying and look-up over short lists comes first: comparing builds on it.
    Stage(500, {"readings": 0.7, "commands": 0.2, "about": 0.1}, (2, 3), (2, 5), _COPYING),
    Stage(1200, {"readings": 0.7, "commands": 0.2, "about": 0.1}, (2, 4), (2, 5)),
    Stage(10**9, {"readings": 0.65, "commands": 0.25, "about": 0.1}, (2, 6), (1, 5)),
)


def stage_at(step: int) -> Stage:
    """The stage of the curriculum a step belongs to."""
    return next(stage for stage in CURRICULUM if step < stage.until_step)
