"""Timing of a generator from outside: prefill in slices, decode token by token. Knows no library, only its two calls."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from edged.hardware.trial_messages import SliceRate

PREFILL_S = 3.0
"""Reading the prompt at one slice size stops after this time; the rate is over what was read."""


def prefill(generator: Any, prompt: Any, slice_tokens: int) -> SliceRate:
    """Reads the prompt in slices until its end or PREFILL_S; at least one slice."""
    started, read, longest_s = time.monotonic(), 0, 0.0
    for slice_ in _slices(prompt, slice_tokens):
        before = time.monotonic()
        generator.append_tokens(slice_)
        read += len(slice_)
        now = time.monotonic()
        longest_s = max(longest_s, now - before)
        if now - started > PREFILL_S:
            break
    return SliceRate(slice_tokens, read / (time.monotonic() - started), longest_s)


def _slices(prompt: Any, slice_tokens: int) -> Iterator[Any]:
    for first in range(0, len(prompt) - len(prompt) % slice_tokens, slice_tokens):
        yield prompt[first : first + slice_tokens]


def decode(generator: Any, tokens: int, ends_at: float) -> tuple[float, int, float]:
    """(tokens per second, tokens, processor seconds of all threads); at least one token however late it is."""
    count, started, cpu = 0, time.monotonic(), time.process_time()
    while count < tokens and not generator.is_done():
        generator.generate_next_token()
        count += 1
        if time.monotonic() > ends_at:
            break
    return count / (time.monotonic() - started), count, time.process_time() - cpu
