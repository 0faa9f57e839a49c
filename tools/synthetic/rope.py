"""Rotary tables: cosines and sines of position · frequency, `[positions, head_dim / 2]` float32.

Formulas: RoFormer (arXiv 2104.09864) and LongRoPE (arXiv 2402.13753). The LongRoPE factors are a smooth ramp of our
own in the range of the published ones: with random weights only their size and place in the graph matter.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from synthetic.shapes import LongRope, Shape


def plain_tables(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    return _tables(shape, shape.context, np.ones(shape.head_dim // 2), 1.0)


def long_rope_tables(
    shape: Shape, rope: LongRope
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(short, long), each (cosines, sines)."""
    magnitude = sqrt(1 + log(shape.context / rope.original_context) / log(rope.original_context))
    short, long = long_rope_factors(shape, rope)
    return (
        _tables(shape, rope.original_context, short, magnitude),
        _tables(shape, shape.context, long, magnitude),
    )


def long_rope_factors(shape: Shape, rope: LongRope) -> tuple[np.ndarray, np.ndarray]:
    """(short, long): what each frequency is divided by."""
    ramp = np.linspace(0.0, 1.0, shape.head_dim // 2)
    return 1 + 0.05 * ramp, 1 + (2 * shape.context / rope.original_context - 1) * ramp**2


def _tables(shape: Shape, positions: int, factors: np.ndarray, magnitude: float) -> tuple[np.ndarray, np.ndarray]:
    exponents = np.arange(0, shape.head_dim, 2, dtype=np.float64) / shape.head_dim
    frequencies = 1.0 / (factors * shape.rope_theta**exponents)
    angles = np.outer(np.arange(positions, dtype=np.float64), frequencies)
    return (np.cos(angles) * magnitude).astype(np.float32), (np.sin(angles) * magnitude).astype(np.float32)
