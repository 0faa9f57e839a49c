"""How an engine does: answers, failures that are its own, and its pace. Counted by its link while that lives."""

from __future__ import annotations

import bisect
import itertools
import statistics
from collections import deque
from typing import Any

from edged.errors import EngineLost, Internal
from edged.protocol import engine as wire

LAST = 64
TTFT_BOUNDS_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OWN_FAULT = frozenset({Internal.code, EngineLost.code})


class Tally:
    """`answered` and `failed` requests; what was refused for good reason (`busy`, say) is neither."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.ttft_s = 0.0  # of all answers together
        self._ttft_counts = [0] * (len(TTFT_BOUNDS_S) + 1)
        self._decode_tps: deque[float] = deque(maxlen=LAST)

    def note(self, message: wire.Done | wire.Result | wire.Failed) -> None:
        """The last word on a request."""
        if isinstance(message, wire.Failed):
            self.failed += message.code in OWN_FAULT
            return
        self.answered += 1
        if not isinstance(message, wire.Done):
            return
        if tps := message.timings.get("decode_tps"):
            self._decode_tps.append(tps)
        self.prompt_tokens += message.usage.get("prompt_tokens", 0)
        self.completion_tokens += message.usage.get("completion_tokens", 0)
        if (ttft_ms := message.timings.get("ttft_ms")) is not None:
            self.ttft_s += ttft_ms / 1000
            self._ttft_counts[bisect.bisect_left(TTFT_BOUNDS_S, ttft_ms / 1000)] += 1

    def to_map(self) -> dict[str, Any]:
        """What `status` shows. `ttft_le_s`: answers by time to first token, each count holding those before it."""
        counts = list(itertools.accumulate(self._ttft_counts))
        names = [*(f"{bound:g}" for bound in TTFT_BOUNDS_S), "+Inf"]
        return {
            "answered": self.answered,
            "failed": self.failed,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "ttft_sum_s": round(self.ttft_s, 3),
            "ttft_le_s": dict(zip(names, counts, strict=True)),
        }

    @property
    def decode_tps(self) -> float | None:
        """Tokens per second of a stream, the median of the last answers; None before the first."""
        return statistics.median(self._decode_tps) if self._decode_tps else None
