"""One request to a plain model: what it waits for, what it has got, and how it answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from edged.protocol import engine as wire

Array = NDArray[Any]
Answer = tuple[dict[str, Any], tuple[bytes, ...]]
Key = tuple[str, Hashable, int]
"""What kind of run an item needs and its size class (together they say how long it takes), and a number that differs
for what must run alone. Items of equal keys may run together."""


@dataclass(frozen=True, slots=True)
class Row:
    """One prepared item: its `rows` of a batch, their arrays or tokens, and what its answer needs to know."""

    value: Any
    rows: int = 1
    context: Any = None


class Task(Protocol):
    """What a kind of request does around the model's run. Stateless but for what it learnt when it was made."""

    def items(self, start: wire.Start) -> Sequence[Any]:
        """The parts of a request that may run apart from each other. Raises a RequestError for what cannot be."""

    def key(self, item: Any) -> Key:
        """What the item may run together with."""

    def cost_bytes(self, item: Any) -> int:
        """Memory that preparing the item takes, for a moment."""

    def prepare(self, item: Any, deadline_s: float | None) -> Row:
        """The item as the model takes it. Native code may be called. Raises a RequestError."""

    def feeds(self, rows: Sequence[Row], pad_to: int) -> dict[str, Array]:
        """The graph's inputs for these rows together; filled up to `pad_to` rows if that is more."""

    def part(self, row: Row, outputs: Mapping[str, Array]) -> Any:
        """What is kept of the outputs of one row, cut out of the batch."""

    def answer(self, start: wire.Start, parts: Sequence[Any]) -> Answer:
        """The reply's fields and frames, from the parts in order."""


@dataclass(slots=True, eq=False)
class Job:
    """A live request. `waiting` are its items that have not run; `parts` what came of those that have."""

    start: wire.Start
    task: Task
    waiting: deque[Any]
    taken_s: float = 0.0
    run_s: float = 0.0
    most_rows: int = 0
    ended: bool = False
    parts: list[Any] = field(default_factory=list)

    @property
    def rid(self) -> int:
        return self.start.rid

    def timings(self, now_s: float) -> dict[str, float]:
        """Milliseconds from when the front had the request; `run_ms` is the model's, shared with its batch."""
        received_s = self.start.received_s
        return {
            "queue_ms": round((self.taken_s - received_s) * 1000, 3),
            "run_ms": round(self.run_s * 1000, 3),
            "total_ms": round((now_s - received_s) * 1000, 3),
        }
