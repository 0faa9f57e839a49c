"""How fast this model runs here, measured as it runs: sizes prefill slices and says how long a native call may take."""

from __future__ import annotations

from collections.abc import Sequence

SMOOTHING = 0.3  # weight of the newest measurement
FIRST_SLICE_TOKENS = 8
MAX_SLICE_TOKENS = 512
SLACK = 3.0  # a call may take this many times its estimate before it is late…
SLACK_S = 0.5  # …plus this
PASS_SHARE = 1 / 64  # when nobody else waits, at most this part of a slice may be the fixed cost of one pass
UNSEEN_COST = 4.0  # a picture's token costs at most so many of text: a guess until one has been read
UNSEEN_S = 5.0
FIRST_SIGHT_S = 300.0
ZERO_BYTES_PER_S = 200e6  # slowest rate at which KV memory is allocated and zeroed (a Raspberry Pi under pressure)


class Pace:
    """Owned by the engine's main thread. Rates are tokens per second, 0 until measured.

    `slice_s` is how long a slice may take while others run, `alone_s` the most while nobody else does.
    """

    def __init__(self, slice_s: float, alone_s: float = 0.0) -> None:
        self._slice_s, self._alone_s = slice_s, alone_s
        self.prefill_tps = 0.0
        self.step_s = 0.0
        self.pass_s = 0.0  # what one pass costs however few tokens it reads: mostly, that all weights are read once
        self.seeing_tps = 0.0

    def slice_tokens(self, left_tokens: int = 0, *, alone: bool = False) -> int:
        """How many prompt tokens to read in the next slice, so that it takes about `slice_s`.

        Each slice costs one pass beside its tokens. On a large model that is a sixth of a short slice and more, so a
        request that is `alone` gets longer ones, of `alone_s` at the most; and when that leaves less than half a slice
        of `left_tokens`, all of them.
        """
        if not self.prefill_tps:
            return FIRST_SLICE_TOKENS
        slice_s = self._slice_s
        if alone:
            slice_s = max(slice_s, min(self._alone_s, self.pass_s / PASS_SHARE))
        tokens = max(FIRST_SLICE_TOKENS, min(MAX_SLICE_TOKENS, int(self.prefill_tps * slice_s)))
        return left_tokens if alone and tokens < left_tokens <= tokens + tokens // 2 else tokens

    def prefilled(self, tokens: int, took_s: float) -> None:
        """A slice was read. Tiny ones say little about the rate, once there is one, but what a pass costs."""
        if tokens < FIRST_SLICE_TOKENS and self.prefill_tps:
            self.pass_s = _smooth(self.pass_s, max(0.0, took_s - tokens / self.prefill_tps))
        elif took_s > 0:
            self.prefill_tps = _smooth(self.prefill_tps, tokens / took_s)

    def saw(self, tokens: int, took_s: float) -> None:
        """Pictures and the prompt before them were read: encoding and decoder together."""
        self.seeing_tps = _smooth(self.seeing_tps, tokens / max(took_s, 1e-6))

    def stepped(self, took_s: float) -> None:
        """One token was decoded for one slot."""
        self.step_s = _smooth(self.step_s, took_s)

    def forget(self) -> None:
        """Start measuring anew."""
        self.prefill_tps = self.step_s = self.pass_s = self.seeing_tps = 0.0

    def forget_sight(self) -> None:
        """The first look pays for what is made lazily."""
        self.seeing_tps = 0.0

    def seeing_allowed_s(self, tokens: int) -> float:
        """What reading pictures and the prompt before them may take at most."""
        tps = self.seeing_tps or self.prefill_tps / UNSEEN_COST
        return SLACK * tokens / tps + UNSEEN_S if tps else FIRST_SIGHT_S

    def prefill_allowed_s(self, tokens: int) -> float:
        """What a slice may take at most."""
        if not self.prefill_tps:
            return 30.0
        return SLACK * tokens / self.prefill_tps + SLACK_S

    def step_allowed_s(self, slots: int) -> float:
        """What a decode step over `slots` slots may take at most."""
        return SLACK * self.step_s * slots + SLACK_S if self.step_s else 30.0

    def wait_ms(self, place: int, left_tokens: Sequence[int]) -> int:
        """When the `place`-th running request ends (ms), if each has so many tokens left; they share the machine."""
        left = sorted(left_tokens)
        if not left or not self.step_s:
            return 0
        rounds, nth = divmod(place - 1, len(left))
        return int((rounds * left[-1] + left[nth]) * self.step_s * len(left) * 1000)

    def allocation_allowed_s(self, kv_bytes: int) -> float:
        """What opening a slot may take at most."""
        return kv_bytes / ZERO_BYTES_PER_S + SLACK_S


def _smooth(old: float, new: float) -> float:
    return new if not old else (1 - SMOOTHING) * old + SMOOTHING * new
