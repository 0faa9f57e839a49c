"""The sampler against a plain reference: which tokens may come, how often they do, and what a seed promises."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.engine.sampler import Sampler, Sampling
from edged.errors import Internal

pytestmark = pytest.mark.aarch64

DRAWS = 4000


def _logits(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def _chances(logits: np.ndarray, sampling: Sampling) -> dict[int, float]:
    """Textbook: temperature, then the top_k likeliest, then the smallest set of at least top_p, then min_p."""
    scaled = {token: float(value) / sampling.temperature for token, value in enumerate(logits)}
    order = sorted(scaled, key=lambda token: -scaled[token])
    if sampling.top_k:
        order = order[: sampling.top_k]
    peak = max(scaled.values())
    weights = {token: math.exp(scaled[token] - peak) for token in order}
    total = sum(weights.values())
    kept, mass = [], 0.0
    for token in order:
        kept.append(token)
        mass += weights[token] / total
        if mass >= sampling.top_p - 1e-12:
            break
    best = weights[kept[0]]
    kept = [token for token in kept if weights[token] >= sampling.min_p * best]
    total = sum(weights[token] for token in kept)
    return {token: weights[token] / total for token in kept}


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, seed=1),
        Sampling(temperature=0.5, seed=2),
        Sampling(temperature=3.0, seed=3),
        Sampling(temperature=1.0, top_k=3, seed=4),
        Sampling(temperature=1.0, top_p=0.7, seed=5),
        Sampling(temperature=1.0, min_p=0.3, seed=6),
        Sampling(temperature=1.5, top_k=5, top_p=0.8, min_p=0.1, seed=7),
        Sampling(temperature=1.0, top_k=1, seed=8),
        Sampling(temperature=1.0, top_p=0.01, seed=9),
    ],
    ids=str,
)
def test_draws_follow_the_reference(sampling: Sampling) -> None:
    logits = _logits(0.3, 2.0, -1.0, 1.5, 0.0, 2.2, -3.0, 1.0)
    wanted = _chances(logits, sampling)
    sampler = Sampler(sampling)
    drawn = Counter(sampler.pick(logits).token for _ in range(DRAWS))
    assert set(drawn) <= set(wanted)
    for token, chance in wanted.items():  # five standard deviations: with fixed seeds, this holds or never does
        assert abs(drawn[token] - chance * DRAWS) <= 5 * math.sqrt(DRAWS * chance * (1 - chance)) + 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=40),
    st.floats(0.05, 5),
    st.integers(0, 50),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.integers(0, 2**63 - 1),
)
def test_only_what_the_reference_allows_is_drawn(
    values: list[float], temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    logits = _logits(*values)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    token = Sampler(sampling).pick(logits).token
    allowed = _chances(logits, sampling)
    least = min(float(logits[each]) for each in allowed)
    assert float(logits[token]) >= least - 1e-3  # of tokens that are equally likely, any may be the kept one


@pytest.mark.parametrize("temperature", [5e-324, 1e-308, 1e-30, 1e-3])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    logits = _logits(-8.0, 12.0, 11.9, -30.0)
    assert Sampler(Sampling(temperature=temperature, seed=1)).pick(logits).token == 1


def test_a_seed_repeats_the_draws_and_no_seed_does_not() -> None:
    logits = _logits(*[0.0] * 1000)
    draws = [[sampler.pick(logits).token for _ in range(5)] for sampler in
             (Sampler(Sampling(temperature=1, seed=3)), Sampler(Sampling(temperature=1, seed=3)),
              Sampler(Sampling(temperature=1)), Sampler(Sampling(temperature=1)))]  # fmt: skip
    assert draws[0] == draws[1]
    assert draws[2] != draws[3]


def test_repetition_penalty_takes_prompt_and_answer_both_ways() -> None:
    sampler = Sampler(Sampling(repetition_penalty=2.0), prompt=[0, 2])
    logits = _logits(3.0, 1.6, -1.0, -1.9)
    assert sampler.pick(logits).token == 1  # 3.0 / 2 = 1.5 is less than 1.6
    assert sampler.pick(logits).token == 0  # now 1 is at 0.8, and 0 at 1.5
    only = Sampler(Sampling(repetition_penalty=2.0), prompt=[0])
    assert only.pick(_logits(-1.0, -1.5)).token == 1  # a negative score is multiplied: -2.0


def test_frequency_and_presence_penalties_count_the_answer_alone() -> None:
    logits = _logits(1.0, 0.45)
    frequency = Sampler(Sampling(frequency_penalty=0.3), prompt=[0, 0, 0])
    assert [frequency.pick(logits).token for _ in range(4)] == [0, 0, 1, 0]  # 1.0, 0.7, 0.4 < 0.45, then 0.4 > 0.15
    presence = Sampler(Sampling(presence_penalty=0.5))
    assert [presence.pick(_logits(1.0, 0.6)).token for _ in range(3)] == [0, 1, 0]  # once, however often
    reward = Sampler(Sampling(presence_penalty=-1.0))
    assert [reward.pick(_logits(0.5, 0.4)).token for _ in range(3)] == [0, 0, 0]


def test_logprobs_are_the_models_own() -> None:
    logits = _logits(1.0, 2.0, 3.0, -1.0)
    whole = np.log(np.exp(logits.astype(np.float64)).sum())
    picked = Sampler(Sampling(temperature=0.1, presence_penalty=1.0, logprobs=2, seed=1)).pick(logits)
    assert picked.logprob == pytest.approx(float(logits[picked.token]) - whole)
    assert [token for token, _ in picked.top] == [2, 1]
    assert picked.top[0][1] == pytest.approx(3.0 - whole)
    assert len(Sampler(Sampling(logprobs=20)).pick(logits).top) == 4


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1), Sampling(logprobs=1)], ids=str)
def test_a_model_that_yields_no_numbers_is_refused(bad: float, sampling: Sampling) -> None:
    with pytest.raises(Internal, match="not finite"):
        Sampler(sampling).pick(_logits(1.0, bad, 2.0))


def test_a_token_ruled_out_by_the_model_never_comes() -> None:
    logits = _logits(-math.inf, 0.0, -math.inf, 0.0)
    sampler = Sampler(Sampling(temperature=5, repetition_penalty=1.5, frequency_penalty=1, seed=1), prompt=[0])
    assert {sampler.pick(logits).token for _ in range(200)} <= {1, 3}
