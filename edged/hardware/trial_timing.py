"""Timing of a generator from outside: prefill in slices, decode token by token. Knows no library, only two calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edged.hardware.trial_messages import SliceRate

ENOUGH_S = 0.6
"""Rounds are repeated until this much was timed: a small model's prompt is over in milliseconds."""

ROUNDS_S = 2.0
"""No new round is begun after this time, what is not timed included."""

PREFILL_S = 3.0
"""Reading the prompt at one slice size stops after this time; the rate is over what was read."""


def bearable(slices: Sequence[int], tps: float, budget_s: float, least: int) -> list[int]:
    """The slice sizes (tokens) of which one would take at most a third of the budget at `tps`; `least` if none does.

    A native call cannot be cut short: a slow box must not be asked for a long one.
    """
    return [tokens for tokens in slices if tokens / tps <= budget_s / 3] or [least]


def time_prefill(generator: Callable[[], Any], prompt: Any, slice_tokens: int, ends_at: float) -> SliceRate:
    """Reads `prompt` in slices with fresh generators, at least one slice; making a generator is not timed."""
    read, spent_s, longest_s = 0, 0.0, 0.0
    ends_at = min(ends_at, time.monotonic() + ROUNDS_S)
    while spent_s < ENOUGH_S and (not read or time.monotonic() < ends_at):
        current = generator()
        for slice_ in _slices(prompt, slice_tokens):
            before = time.monotonic()
            current.append_tokens(slice_)
            took_s = time.monotonic() - before
            read, spent_s, longest_s = read + len(slice_), spent_s + took_s, max(longest_s, took_s)
            if spent_s > PREFILL_S:
                break
    return SliceRate(slice_tokens, read / spent_s, longest_s)


def time_decode(generator: Callable[[], Any], prompt: Any, tokens: int, ends_at: float) -> tuple[float, int, float]:
    """(tokens per second, tokens, processor seconds of all threads) after `prompt`; at least one token.

    The first token after a prompt is not timed: reading the prompt has already computed it, taking it costs nothing.
    """
    count, spent_s, cpu_s = 0, 0.0, 0.0
    no_round_after = min(ends_at, time.monotonic() + ROUNDS_S)
    while spent_s < ENOUGH_S and (not count or time.monotonic() < no_round_after):
        current = generator()
        current.append_tokens(prompt)
        current.generate_next_token()
        started, cpu = time.monotonic(), time.process_time()
        for _ in range(tokens):
            if current.is_done() or (count and time.monotonic() > ends_at):
                break
            current.generate_next_token()
            count += 1
        spent_s, cpu_s = spent_s + time.monotonic() - started, cpu_s + time.process_time() - cpu
    return count / spent_s, count, cpu_s


def _slices(prompt: Any, slice_tokens: int) -> Iterator[Any]:
    """Whole slices only: a short last one would be timed as if it were whole."""
    for first in range(0, len(prompt) - len(prompt) % slice_tokens, slice_tokens):
        yield prompt[first : first + slice_tokens]
