"""Chooses how many threads to train with, step by step, on a machine that others use too.

Two threads wait for each other many times a step: when one of them has to share its core, one thread alone is faster.
"""

from __future__ import annotations

_PROBE_EVERY = 12


class ThreadChooser:
    """Keeps the newest time per step of each number of threads; tries the slower one now and then."""

    def __init__(self, most: int) -> None:
        self._choices = tuple(sorted({1, most}, reverse=True))
        self._newest_s: dict[int, float] = {}
        self._steps = 0

    def choose(self) -> int:
        """The number of threads for the next step."""
        self._steps += 1
        untried = [choice for choice in self._choices if choice not in self._newest_s]
        if untried:
            return untried[0]
        order = sorted(self._choices, key=lambda choice: self._newest_s[choice])
        return order[-1] if self._steps % _PROBE_EVERY == 0 else order[0]

    def took(self, threads: int, seconds: float) -> None:
        """Tell how long a step took; the newest counts half, so that a change of load is noticed."""
        old = self._newest_s.get(threads, seconds)
        self._newest_s[threads] = 0.5 * (old + seconds)
