"""From logits to a token: penalties, temperature, top-k, top-p, min-p, then a seeded draw. numpy only, no model.

Order and meaning follow common use (Hugging Face transformers' logits processors; OpenAI's frequency and presence
penalties; min-p as in arXiv:2407.01082). Temperature 0 is greedy.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edged.errors import Internal

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sampling:
    """A request's sampling fields; ranges are the wire's. `top_k` 0 is off, `logprobs` 0 is none."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Picked:
    """A token, and when asked for its natural-log probability and the `top` most likely ones, under the model itself
    (before penalties and temperature)."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """The state of one request's draws: its generator of random numbers and what it has said so far.

    `greedy` when it takes the likeliest token as the model gives it.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int] = ()) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._said: Counter[int] = Counter()
        self._penalised = sampling.frequency_penalty != 0 or sampling.presence_penalty != 0
        self._repeatable: set[int] | None = set(prompt) if sampling.repetition_penalty != 1.0 else None
        self.greedy = not (self._penalised or self._repeatable is not None or sampling.temperature or sampling.logprobs)

    def pick(self, logits: Logits) -> Picked:
        """The next token for `logits` [vocab] float32. Raises Internal when the model's numbers are not numbers."""
        if self.greedy:
            token = int(logits.argmax())
            if not math.isfinite(logits[token]):
                raise _not_finite()
            return Picked(token)
        scores = logits.astype(np.float64)
        if not np.isfinite(scores.max()) or np.isnan(scores).any():
            raise _not_finite()
        chosen = self._choose(self._penalise(scores.copy()))
        self._said[chosen] += 1
        if self._repeatable is not None:
            self._repeatable.add(chosen)
        return self._with_logprobs(chosen, scores) if self._sampling.logprobs else Picked(chosen)

    def _penalise(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        sampling = self._sampling
        if self._repeatable:
            seen = np.fromiter(self._repeatable, dtype=np.intp)
            values = scores[seen]
            scores[seen] = np.where(
                values > 0, values / sampling.repetition_penalty, values * sampling.repetition_penalty
            )
        if self._penalised and self._said:
            said = np.fromiter(self._said.keys(), dtype=np.intp)
            counts = np.fromiter(self._said.values(), dtype=np.float64)
            scores[said] -= counts * sampling.frequency_penalty + sampling.presence_penalty
        return scores

    def _choose(self, scores: NDArray[np.float64]) -> int:
        sampling = self._sampling
        if sampling.temperature == 0:
            return int(scores.argmax())
        with np.errstate(over="ignore"):  # at a tiny temperature all but the best go to minus infinity, as they should
            scores = (scores - scores.max()) / sampling.temperature
        if 0 < sampling.top_k < len(scores):
            kept = np.argpartition(scores, -sampling.top_k)[-sampling.top_k :]
        else:
            kept = np.arange(len(scores))
        kept = kept[np.argsort(-scores[kept], kind="stable")]
        chances = np.exp(scores[kept] - scores[kept[0]])
        chances /= chances.sum()
        if sampling.top_p < 1:
            within = int(np.searchsorted(np.cumsum(chances), sampling.top_p)) + 1
            kept, chances = kept[:within], chances[:within]
        if sampling.min_p > 0:
            likely = chances >= sampling.min_p * chances[0]
            kept, chances = kept[likely], chances[likely]
        edge = np.cumsum(chances)
        at = int(np.searchsorted(edge, self._random.random() * edge[-1], side="right"))
        return int(kept[min(at, len(kept) - 1)])

    def _with_logprobs(self, chosen: int, scores: NDArray[np.float64]) -> Picked:
        peak = scores.max()
        logprobs = scores - (peak + np.log(np.exp(scores - peak).sum()))
        count = min(self._sampling.logprobs, len(scores))
        best = np.argpartition(logprobs, -count)[-count:]
        best = best[np.argsort(-logprobs[best], kind="stable")]
        return Picked(chosen, float(logprobs[chosen]), tuple((int(token), float(logprobs[token])) for token in best))


def _not_finite() -> Internal:
    return Internal("the model produced numbers that are not finite; its files may be damaged (`edged verify`)")
