"""A loaded plain model: what may run together, how long that may take, and the runs, announced on the pulse."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edged.engine.plain.job import Key, Row, Task
from edged.errors import ModelError
from edged.protocol.pulse import NO_REQUEST, PulseWriter
from edged.store.plain_manifest import MANIFEST_FILE, PlainModel

Array = NDArray[Any]
BETWEEN_CALLS_S = 2.0
UNKNOWN_S = 30.0  # what a run may take of which none like it was measured
SLACK, SLACK_S = 3.0, 0.5
SMOOTHING = 0.3
MOST_PACES = 256


class Backend(Protocol):
    """A graph that can be run."""

    def run(self, feeds: Mapping[str, Array], limit_s: float | None = None) -> dict[str, Array]:
        """Outputs by name. Raises DeadlineExceeded after `limit_s`, and what the library raises for bad inputs."""


class Runner:
    """Owns the backend. `max_rows` is how many rows may run together; `padded` when the graph wants exactly so many."""

    def __init__(self, model: PlainModel, backend: Backend, pulse: PulseWriter) -> None:
        self.model = model
        self._backend, self._pulse = backend, pulse
        self._pace: dict[Hashable, float] = {}  # seconds a row, by kind of run
        first = {tensor.dims[0] if tensor.dims else 1 for tensor in model.inputs}
        fixed = first.pop() if len(first) == 1 else 1
        self.padded = isinstance(fixed, int)
        self.max_rows = fixed if isinstance(fixed, int) else model.manifest.max_batch
        self.runs = self.rows = 0

    def allowed_s(self, key: Key, rows: int) -> float:
        """What a run of so many rows may take at most."""
        row_s = self._pace.get(key[:2])
        return SLACK * row_s * rows + SLACK_S if row_s is not None else UNKNOWN_S

    @property
    def row_s(self) -> float:
        """What a row took of late, of the kind that ran last; 0 before anything was measured."""
        return next(reversed(self._pace.values()), 0.0)

    def prepare(self, task: Task, item: Any, deadline_s: float | None, allowed_s: float, rid: int) -> Row:
        """One item made ready, announced: it may be an image from a stranger."""
        self._pulse.beat(allowed_s, rid)
        try:
            return task.prepare(item, deadline_s)
        finally:
            self._pulse.beat(BETWEEN_CALLS_S)

    def run(
        self, key: Key, feeds: Mapping[str, Array], rows: int, *, rid: int, limit_s: float | None
    ) -> dict[str, Array]:
        """One native call. `rid` is the request it works for, NO_REQUEST when there are several."""
        allowed_s = self.allowed_s(key, rows)
        self._pulse.beat(allowed_s, rid)
        started_s = time.perf_counter()
        try:
            outputs = self._backend.run(feeds, limit_s if limit_s is not None and limit_s < allowed_s else None)
        finally:
            self._pulse.beat(BETWEEN_CALLS_S)
        self._measured(key[:2], (time.perf_counter() - started_s) / max(1, rows))
        self.runs, self.rows = self.runs + 1, self.rows + rows
        return outputs

    def _measured(self, kind: Hashable, row_s: float) -> None:
        before = self._pace.pop(kind, row_s)
        self._pace[kind] = before + SMOOTHING * (row_s - before)
        while len(self._pace) > MOST_PACES:
            del self._pace[next(iter(self._pace))]

    def warm_up(self, task: Task, key: Key, row: Row) -> None:
        """The canary: the model must answer. Learns whether its outputs follow the number of rows, and its pace.

        Raises ModelError.
        """
        try:
            for rows in (1, min(2, self.max_rows), 1):  # the last one is the measurement: the first also make things
                self._pace.clear()
                size = self.max_rows if self.padded else rows
                outputs = self.run(key, task.feeds([row] * rows, size), rows, rid=NO_REQUEST, limit_s=None)
                if any(array.ndim < 1 or array.shape[0] != size for array in outputs.values()):
                    self.max_rows = 1
        except Exception as error:
            raise ModelError(
                self.model.folder, self.model.manifest.file, f"failed its first run: {_first_line(error)}"
            ) from error
        self._check_classes(outputs)
        self.runs = self.rows = 0

    def _check_classes(self, outputs: Mapping[str, Array]) -> None:
        spec = self.model.manifest.classify
        if spec is None or not self.model.labels:
            return
        classes = math.prod(outputs[self.model.output(spec.output).name].shape[1:])
        if classes != len(self.model.labels):
            raise ModelError(
                self.model.folder,
                MANIFEST_FILE,
                f"classify.labels: {len(self.model.labels)} of them, but the model gives {classes} scores",
            )


def cut(outputs: Mapping[str, Array], at: int, rows: int, *, whole: bool) -> dict[str, Array]:
    """The outputs of some rows of a batch, copied: no answer keeps a whole batch in memory. `whole`: all of it."""
    if whole:
        return dict(outputs)
    return {name: np.array(array[at : at + rows]) for name, array in outputs.items()}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
