"""One generation from its acceptance to its last word: what it said, what is left to say, and how long it took.

Owns its text and its clocks; the scheduler owns when it runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edged.engine.backends.base import Backend
from edged.engine.sampler import Picked, Sampling
from edged.engine.slots import Lease
from edged.engine.text import TextStream
from edged.protocol import engine as wire

if TYPE_CHECKING:
    from edged.engine.images.pictures import Picture

Send = Callable[[wire.ToFront], None]


@dataclass(slots=True, eq=False)
class Waiting:
    """A request that was read and tokenized, and has no memory yet."""

    start: wire.Start
    prompt: list[int]
    max_tokens: int | None
    session: str | None
    priority: int
    dropped_turns: int | None = None
    pictures: tuple[Picture, ...] = ()
    told_position: int = 0
    told_s: float = 0.0


@dataclass(slots=True, eq=False)
class Job:
    """A request that has its slot. `read` counts prompt tokens in the KV cache, cached ones included.

    `stalled_s` is how long it waited while another request's pictures were read; `throttled_s`, while the box cooled.
    `made_way`: a long slice of it was ended for somebody who came; it takes short ones from then on. `told_end_s` is
    when its end was told although a native call for it goes on; 0 otherwise.
    """

    start: wire.Start
    prompt: list[int]
    max_tokens: int
    lease: Lease
    text: TextStream
    accepted_s: float
    read: int
    produced: int = 0
    told_end_s: float = 0.0
    made_way: bool = False
    first_token_s: float = 0.0
    last_flush_s: float = 0.0
    throttled_s: float = 0.0
    stalled_s: float = 0.0
    pictures: tuple[Picture, ...] = ()
    told_progress: int = 0
    _unsent: list[str] = field(default_factory=list)
    _whole: list[str] = field(default_factory=list)
    _logprobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rid(self) -> int:
        return self.start.rid

    @property
    def reading(self) -> bool:
        """Part of the prompt is still to be read."""
        return self.read < len(self.prompt)

    @property
    def unseen(self) -> bool:
        """Its pictures are still to be read."""
        return bool(self.pictures) and self.reading and min(self.prompt[self.read :]) < 0

    @property
    def left_tokens(self) -> int:
        return self.max_tokens - self.produced

    def take(self, picked: Picked, backend: Backend, now_s: float) -> str:
        """One more token. Returns the finish reason, or "" when the answer goes on."""
        if not self.produced:
            self.first_token_s = now_s
        self.produced += 1
        if picked.token in backend.info.eos_token_ids:
            return "stop"
        text = self.text.push(backend.token_bytes(picked.token))
        if text:
            self._unsent.append(text)
        if picked.logprob is not None:
            self._logprobs.append(_logprob_map(picked, backend))
        if self.text.stopped:
            return "stop"
        return "length" if self.produced >= self.max_tokens else ""

    def flush(self, send: Send, now_s: float) -> None:
        """Send what may be shown; kept for the end when the client wants the whole text at once."""
        if not self._unsent and not (self._logprobs and self.start.stream):
            return
        text = "".join(self._unsent)
        self._unsent.clear()
        self.last_flush_s = now_s
        if self.start.stream:
            send(wire.Delta(self.rid, text, self._logprobs or None))
            self._logprobs = []
        else:
            self._whole.append(text)

    def finish(self, reason: str, send: Send, now_s: float) -> None:
        """Say the rest, and that it is done."""
        rest = self.text.finish()
        if rest:
            self._unsent.append(rest)
        self.flush(send, now_s)
        usage = {
            "prompt_tokens": len(self.prompt),
            "completion_tokens": self.produced,
            "cached_tokens": self.lease.cached_tokens,
        }
        whole = None if self.start.stream else "".join(self._whole)
        send(wire.Done(self.rid, reason, usage, self._timings(now_s), whole, self._logprobs or None))

    def _timings(self, now_s: float) -> dict[str, float]:
        """Milliseconds from when the front had the request; `decode_tps` counts the tokens after the first."""
        received_s = self.start.received_s
        timings = {
            "queue_ms": round((self.accepted_s - received_s) * 1000, 3),
            "throttled_ms": round(self.throttled_s * 1000, 3),
            "stalled_ms": round(self.stalled_s * 1000, 3),
            "total_ms": round((now_s - received_s) * 1000, 3),
        }
        if self.produced:
            timings["prefill_ms"] = round((self.first_token_s - self.accepted_s) * 1000, 3)
            timings["ttft_ms"] = round((self.first_token_s - received_s) * 1000, 3)
        if self.produced > 1 and now_s > self.first_token_s:
            timings["decode_tps"] = round((self.produced - 1) / (now_s - self.first_token_s), 2)
        return timings


def sampling_of(body: dict[str, Any]) -> Sampling:
    """The sampling fields of a request body; the front has checked their ranges."""
    return Sampling(
        temperature=body["temperature"],
        top_p=body["top_p"],
        top_k=body["top_k"],
        min_p=body["min_p"],
        repetition_penalty=body["repetition_penalty"],
        frequency_penalty=body["frequency_penalty"],
        presence_penalty=body["presence_penalty"],
        seed=body["seed"],
        logprobs=body["logprobs"],
    )


def monotonic_s() -> float:
    """The clock that front and engine share."""
    return time.monotonic()


def _logprob_map(picked: Picked, backend: Backend) -> dict[str, Any]:
    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = backend.token_bytes(token).decode("utf-8", "replace")
        return {"token": token, "text": text, "logprob": round(logprob, 6)}

    assert picked.logprob is not None
    return entry(picked.token, picked.logprob) | {"top": [entry(*pair) for pair in picked.top]}
