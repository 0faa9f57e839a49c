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

    steps: int = 3400
    decay_steps: int = 1500
    warmup_steps: int = 60
    matrix_lr: float = 0.01
    embedding_lr: float = 0.01
    other_lr: float = 0.004

    def factor(self, step: int) -> float:
        """The share of the full learning rate at a step."""
        return min(1.0, (step + 1) / self.warmup_steps, max(0.0, (self.steps - step) / self.decay_steps))

    def quantised(self, step: int) -> bool:
        """Whether int4 rounding is on at a step."""
        return step >= self.steps - self.decay_steps


ROW_TOKENS = 256
ROWS = 16

_LOOKING_BACK = {
    "several": 24, "where": 26, "value": 12, "highest": 8, "lowest": 8, "any": 6, "place_limit": 4, "rank": 8,
    "which": 4,
}  # fmt: skip
_COMPARING = {
    "several": 8, "where": 14, "rank": 10, "value": 16, "highest": 12, "lowest": 12, "any": 12, "place_limit": 10,
    "which": 7, "count": 5,
}  # fmt: skip
CURRICULUM: tuple[Stage, ...] = (
    # Copying, look-up and the order of numbers come first: all else builds on them.
    Stage(300, {"readings": 0.6, "commands": 0.34, "about": 0.06}, (2, 5), (2, 4), _LOOKING_BACK, 0.4),
    Stage(1500, {"readings": 0.55, "commands": 0.36, "about": 0.09}, (2, 6), (2, 5), _COMPARING, 0.1),
    Stage(10**9, {"readings": 0.7, "commands": 0.22, "about": 0.08}, (2, 5), (2, 5), None, 0.03),
)


def stage_at(step: int) -> Stage:
    """The stage of the curriculum a step belongs to."""
    return next(stage for stage in CURRICULUM if step < stage.until_step)
