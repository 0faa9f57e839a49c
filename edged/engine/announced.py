"""A backend that says on the pulse what it is about to do and how long that may take, and measures what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from edged.engine.backends.base import Backend, Interrupted, Slot
from edged.engine.pace import Pace
from edged.engine.sampler import Picked
from edged.errors import RequestError
from edged.protocol.pulse import PulseWriter

if TYPE_CHECKING:
    from edged.engine.images.pictures import Picture

BETWEEN_CALLS_S = 2.0  # what the engine's own Python may take before it beats again
TEXT_S = 5.0  # tokenizing the largest request


class AnnouncedBackend:
    """Wraps a backend; `rid_of` names the request a slot works for."""

    def __init__(self, backend: Backend, pulse: PulseWriter, pace: Pace) -> None:
        self._backend, self._pulse, self._pace = backend, pulse, pace
        self.info = backend.info
        self.failures_in_a_row = 0  # of reading and writing tokens, whatever the request
        self.rid = 0  # the request that the next call works for; set by the scheduler

    @contextmanager
    def _call(self, allowed_s: float) -> Iterator[None]:
        self._pulse.beat(allowed_s, self.rid)
        try:
            yield
        finally:
            self._pulse.beat(BETWEEN_CALLS_S)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A refusal is an answer too, and so is an end that was asked for; all else that is raised is the provider's
        failure, or the model's."""
        try:
            yield
        except (RequestError, Interrupted):
            raise
        except Exception:
            self.failures_in_a_row += 1
            raise
        self.failures_in_a_row = 0

    def busy_for(self, allowed_s: float) -> AbstractContextManager[None]:
        """Around other native work for the request in hand, such as decoding its pictures."""
        return self._call(allowed_s)

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        with self._call(TEXT_S):
            return self._backend.encode_chat(messages)

    def encode_text(self, text: str) -> list[int]:
        with self._call(TEXT_S):
            return self._backend.encode_text(text)

    def token_bytes(self, token: int) -> bytes:
        return self._backend.token_bytes(token)

    def open_slot(self, capacity_tokens: int) -> Slot:
        with self._call(self._pace.allocation_allowed_s(capacity_tokens * self.info.kv_bytes_per_token)):
            return self._backend.open_slot(capacity_tokens)

    def prefill(self, slot: Slot, tokens: Sequence[int], stopped: Callable[[], bool] | None = None) -> None:
        with self._call(self._pace.prefill_allowed_s(len(tokens))), self._counted():
            started_s = time.perf_counter()
            self._backend.prefill(slot, tokens, stopped)
            self._pace.prefilled(len(tokens), time.perf_counter() - started_s)

    def see(self, slot: Slot, tokens: Sequence[int], pictures: Sequence[Picture], stopped: Callable[[], bool]) -> None:
        with self._call(self._pace.seeing_allowed_s(len(tokens))):
            started_s = time.perf_counter()
            self._backend.see(slot, tokens, pictures, stopped)
            self._pace.saw(len(tokens), time.perf_counter() - started_s)

    def step(self, slots: Sequence[Slot]) -> list[list[Picked]]:
        self._pulse.beat(self._pace.step_allowed_s(len(slots)), self.rid)
        held = sum(len(slot.tokens) for slot in slots)
        started_s = time.perf_counter()
        with self._counted():
            picked = self._backend.step(slots)
        if sum(len(slot.tokens) for slot in slots) > held:  # the first token after a prompt is there without a pass
            self._pace.stepped((time.perf_counter() - started_s) / len(slots))
        self._pulse.beat(BETWEEN_CALLS_S)
        return picked

    def forget_pace(self) -> None:
        """What was measured so far was not typical."""
        self._pace.forget()

    def rewind(self, slot: Slot, length: int) -> None:
        with self._call(TEXT_S):
            self._backend.rewind(slot, length)

    def close_slot(self, slot: Slot) -> None:
        with self._call(TEXT_S):
            self._backend.close_slot(slot)
