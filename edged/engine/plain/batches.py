"""Who runs next at a plain model. One turn: expire → gather what may run together → prepare → run → answer.

Whatever has arrived by then goes into one run; nobody is made to wait for company. Owns the line and the running jobs.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edged.engine.job import Send, monotonic_s
from edged.engine.ledger import Entry, Ledger
from edged.engine.plain.job import Job, Key, Row, Task
from edged.engine.plain.line import Line
from edged.engine.plain.model import Runner, cut
from edged.errors import Busy, Cancelled, DeadlineExceeded, Internal, RequestError, Unsupported
from edged.protocol import engine as wire
from edged.protocol.pulse import NO_REQUEST

log = logging.getLogger(__name__)

Taken = tuple[Job, Row]
CAREFUL_S = 60.0  # after a predecessor ended: one request a run, so that whoever ended it is known by name
RETRY_MS = 500
PROMISE_STEP_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Limits:
    """The owner's settings that matter here; names as in config."""

    max_queue: int
    max_queue_per_client: int
    image_decode_s: float = 10.0
    careful: bool = False


class Batches:
    """`tasks` by the field of a request that asks for them. `budget_bytes` says what memory there may be, now;
    `promise` hears what is held of it, so that other engines do not count on it."""

    def __init__(
        self,
        runner: Runner,
        tasks: dict[str, Task],
        limits: Limits,
        *,
        send: Send,
        budget_bytes: Callable[[], int],
        promise: Callable[[int], None] = lambda held_bytes: None,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self._runner, self._tasks, self._limits = runner, tasks, limits
        self._send, self._budget_bytes, self._promise, self._clock = send, budget_bytes, promise, clock
        self._promised_bytes = 0
        self._line = Line(limits.max_queue, limits.max_queue_per_client)
        self._live: dict[int, Job] = {}
        self._careful_until_s = clock() + CAREFUL_S if limits.careful else 0.0
        self.ledger = Ledger()  # what requests have brought and preparing takes, beside the weights
        self.admitting = True
        self.counts = dict.fromkeys(("finished", "refused"), 0)

    # ---- what the worker hands in

    def submit(self, start: wire.Start) -> None:
        """A new request: judged by its header at once, and put in line."""
        try:
            task = self._task_of(start)
            self._line.check_room(start.client, RETRY_MS)
            if not self.admitting:
                raise Busy("memory is short on this device; try again", retry_after_ms=5000)
            job = Job(start, task, deque(task.items(start)))
            attached_bytes = sum(map(len, start.frames))
            self._check_budget(attached_bytes)
        except RequestError as error:
            self._refuse(start.rid, error)
        except Exception:
            log.exception("request failed rid=%d op=%s", start.rid, start.op)
            self._refuse(start.rid, Internal("edged failed on this request; its log has the details"))
        else:
            self._book(start.rid, start.uid, attached_bytes)
            self._live[start.rid] = job
            self._line.add(job)

    def stop(self, rid: int, reason: str) -> None:
        """End a request early: `cancelled`, or `gone` when nobody is left to answer."""
        job = self._live.get(rid)
        if job is not None:
            self._end(job)
            if reason != "gone":
                self._refuse(rid, Cancelled("cancelled"))

    @property
    def busy(self) -> bool:
        """Something waits."""
        return bool(len(self._line))

    @property
    def live(self) -> int:
        return len(self._live)

    def turn(self) -> None:
        """One run."""
        self._expire()
        key, taken = self._gather()
        if key is not None and taken:
            self._run(key, taken)
        if not self._live and len(self.ledger):
            log.error("memory books do not balance: %d entries without a request", len(self.ledger))

    # ---- a turn

    def _task_of(self, start: wire.Start) -> Task:
        wanted = "text" if start.op == "embed" else "tensors" if start.body.get("inputs") else "image"
        if start.op not in ("infer", "embed"):
            raise Unsupported(f"{start.op}: this is a plain model, which takes {self._offer()}")
        if wanted not in self._tasks:
            raise Unsupported(f"{start.op}: this model takes {self._offer()}")
        return self._tasks[wanted]

    def _offer(self) -> str:
        offers = {"image": "infer with an image", "text": "embed", "tensors": "infer with inputs"}
        return " or ".join(offers[kind] for kind in self._tasks)

    def _expire(self) -> None:
        now_s = self._clock()
        for job in self._line:
            if job.start.deadline_s is not None and job.start.deadline_s <= now_s:
                self._fail(job, DeadlineExceeded("the deadline passed while the request waited its turn"))

    def _gather(self) -> tuple[Key | None, list[Taken]]:
        """Items of one key, of each client in turn, prepared; at most as many rows as may run together."""
        taken: list[Taken] = []
        key: Key | None = None
        rows, most = 0, 1 if self._clock() < self._careful_until_s else self._runner.max_rows
        while rows < most:
            found = self._line.take(key)
            if found is None:
                break
            job, item = found
            key = job.task.key(item)
            job.taken_s = job.taken_s or self._clock()
            row = self._prepare(job, item)
            if row is not None:
                taken.append((job, row))
                rows += row.rows
        return key, [(job, row) for job, row in taken if not job.ended]

    def _prepare(self, job: Job, item: Any) -> Row | None:
        cost_bytes = job.task.cost_bytes(item)
        try:
            self._check_budget(cost_bytes)
        except RequestError as error:
            self._fail(job, error)
            return None
        self._book(-job.rid, job.start.uid, cost_bytes)
        try:
            return self._runner.prepare(job.task, item, job.start.deadline_s, self._limits.image_decode_s, job.rid)
        except RequestError as error:
            self._fail(job, error)
        except Exception:
            log.exception("preparing failed rid=%d", job.rid)
            self._fail(job, Internal("edged failed on this request; its log has the details"))
        finally:
            self.ledger.release(-job.rid)
        return None

    def _run(self, key: Key, taken: Sequence[Taken]) -> None:
        first = taken[0][0]
        rows = [row for _, row in taken]
        count = sum(row.rows for row in rows)
        jobs = {job.rid: job for job, _ in taken}
        alone = len(jobs) == 1
        try:
            feeds = first.task.feeds(rows, self._runner.max_rows if self._runner.padded else count)
            started_s = self._clock()
            outputs = self._runner.run(
                key, feeds, count, rid=first.rid if alone else NO_REQUEST, limit_s=self._limit_s(jobs)
            )
        except RequestError as error:
            for job in jobs.values():
                self._fail(job, error)
            return
        except Exception:
            if len(taken) > 1:  # one of them spoils it for the others: each for itself
                for each in taken:
                    if not each[0].ended:
                        self._run(key, [each])
                return
            log.exception("run failed rid=%d", first.rid)
            self._fail(first, Unsupported("the model failed on this input; the daemon's log says how"))
            return
        run_s = self._clock() - started_s
        at = 0
        for job, row in taken:
            whole = len(taken) == 1 and not self._runner.padded
            job.parts.append(job.task.part(row, cut(outputs, at, row.rows, whole=whole)))
            at += row.rows
        for job in jobs.values():
            job.run_s += run_s
            job.most_rows = max(job.most_rows, count)
            if not job.waiting:
                self._answer(job)

    def _limit_s(self, jobs: dict[int, Job]) -> float | None:
        """When a run is of no more use to anybody; None while somebody has no deadline."""
        deadlines = [job.start.deadline_s for job in jobs.values()]
        if any(deadline is None for deadline in deadlines):
            return None
        return max(deadline for deadline in deadlines if deadline is not None) - self._clock()

    def _answer(self, job: Job) -> None:
        now_s = self._clock()
        self._end(job)
        try:
            fields, frames = job.task.answer(job.start, job.parts)
        except RequestError as error:
            self._refuse(job.rid, error)
            return
        except Exception:
            log.exception("answer failed rid=%d", job.rid)
            self._refuse(job.rid, Internal("edged failed on the model's answer; its log has the details"))
            return
        self.counts["finished"] += 1
        fields["timings"] = job.timings(now_s)
        fields["batch"] = job.most_rows
        self._send(wire.Result(job.rid, fields, frames))

    # ---- ends and books

    def _check_budget(self, more_bytes: int) -> None:
        free_bytes = self._budget_bytes() - self.ledger.total_bytes
        if more_bytes > free_bytes:
            raise Busy(
                f"this needs {more_bytes / 1e6:.0f} MB of memory, {max(0, free_bytes) / 1e6:.0f} MB are free now",
                retry_after_ms=1000,
            )

    def _book(self, number: int, uid: int, held_bytes: int) -> None:
        self.ledger.book(number, Entry(f"request {abs(number)}", uid, 0, held_bytes, running=True))
        if self.ledger.total_bytes > self._promised_bytes:
            self._promise_whole(self.ledger.total_bytes)

    def tick(self) -> None:
        """About once a second: what is held no longer is free for other engines."""
        self._promise_whole(self.ledger.total_bytes)

    def _promise_whole(self, held_bytes: int) -> None:
        """In steps, so that small requests do not each cost a word to the other engines."""
        wanted_bytes = -(-held_bytes // PROMISE_STEP_BYTES) * PROMISE_STEP_BYTES
        if wanted_bytes != self._promised_bytes:
            self._promised_bytes = wanted_bytes
            self._promise(wanted_bytes)

    def _end(self, job: Job) -> None:
        job.ended = True
        self._line.remove(job)
        if self._live.pop(job.rid, None) is not None:
            self.ledger.release(job.rid)

    def _fail(self, job: Job, error: RequestError) -> None:
        if not job.ended:
            self._end(job)
            self._refuse(job.rid, error)

    def _refuse(self, rid: int, error: RequestError) -> None:
        self.counts["refused"] += 1
        self._send(wire.Failed(rid, error.code, error.message, error.retry_after_ms, error.max_tokens_fit))
