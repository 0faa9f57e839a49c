"""Which models and lengths are measured when none are named: every head layout, caches of 1 MB to 3 GB."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """A shape of make_synthetic.py with options of its own, and the lengths (tokens) to measure it at."""

    shape: str
    options: tuple[str, ...]
    lengths: tuple[int, ...]

    @property
    def name(self) -> str:
        return "-".join([self.shape, *(option.strip("-") for option in self.options)])


SMALL = (
    Model("tiny", (), (256, 1000, 4096)),
    Model("tiny-gqa", (), (256, 1000, 4096)),
    Model("tiny-longrope", (), (64, 256)),
    Model("tiny", ("--layers", "32"), (1024, 3500, 4096)),  # 32 KiB a token: from 33 MB over the 100 MB line
    Model("tiny-gqa", ("--layers", "64"), (1024, 3600, 4096)),
    Model("phi3.5-mini", ("--layers", "2", "--vocab", "2048"), (500, 2200, 4096)),
)
FULL = (
    Model("phi3.5-mini", ("--block-size", "128", "--pruned-head"), (256, 1024, 2048)),
    Model("phi3.5-mini", (), (160, 512, 4096)),
)
FULL_LENGTHS = (256, 1024, 2048)
