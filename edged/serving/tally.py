"""How an engine does: answers, failures that are its own, and its pace. Counted by its link while that lives."""

from __future__ import annotations

import statistics
from collections import deque

from edged.errors import EngineLost, Internal
from edged.protocol import engine as wire

LAST = 64
OWN_FAULT = frozenset({Internal.code, EngineLost.code})


class Tally:
    """`answered` and `failed` requests; what was refused for good reason (`busy`, say) is neither."""

    def __init__(self) -> None:
        self.answered = 0
        self.failed = 0
        self._decode_tps: deque[float] = deque(maxlen=LAST)

    def note(self, message: wire.Done | wire.Result | wire.Failed) -> None:
        """The last word on a request."""
        if isinstance(message, wire.Failed):
            self.failed += message.code in OWN_FAULT
            return
        self.answered += 1
        if isinstance(message, wire.Done) and (tps := message.timings.get("decode_tps")):
            self._decode_tps.append(tps)

    @property
    def decode_tps(self) -> float | None:
        """Tokens per second of a stream, the median of the last answers; None before the first."""
        return statistics.median(self._decode_tps) if self._decode_tps else None
