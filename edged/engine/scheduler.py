"""Who runs next. One turn: expire → admit → read one slice of one prompt → one step of every running stream.

So a running stream never waits for more than one slice of somebody else's prompt, and cancels, deadlines and new work
are looked at between slices and between tokens. Owns the queue, the running jobs and the slots.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from edged.engine.admission import Admit, Reject, Wait
from edged.engine.announced import AnnouncedBackend
from edged.engine.backends.base import Interrupted
from edged.engine.booking import Booking
from edged.engine.intake import Policy, read_request, too_large
from edged.engine.job import Job, Send, Waiting, monotonic_s, sampling_of
from edged.engine.meanwhile import Meanwhile
from edged.engine.neighbours import Neighbours
from edged.engine.pace import Pace
from edged.engine.queue import Queue
from edged.engine.quota import TokenRate
from edged.engine.sampler import Sampler
from edged.engine.sessions import Kept
from edged.engine.slots import Slots
from edged.engine.text import TextStream
from edged.errors import Busy, Cancelled, DeadlineExceeded, Internal, NotFound, RequestError, Unsupported
from edged.protocol import engine as wire

log = logging.getLogger(__name__)

TELL_PLACE_S = 0.5  # a request that waits hears of its place at most this often: in a flood all places change at once
PROGRESS_TOKENS = 256  # prompts at least this long report how far they were read


class Scheduler:
    """`send` takes what goes to the front; `budget_bytes` says how much KV memory there may be in all, now; `listen`
    gives the messages that came during a long native call; `leave` ends this process in the middle of one."""

    def __init__(
        self,
        backend: AnnouncedBackend,
        pace: Pace,
        policy: Policy,
        *,
        send: Send,
        budget_bytes: Callable[[], int],
        strips_first_space: bool,
        listen: Callable[[], Sequence[wire.ToEngine]] = tuple,
        neighbours: Neighbours | None = None,
        leave: Callable[[], None] | None = None,
        clock: Callable[[], float] = monotonic_s,
    ) -> None:
        self._backend, self._pace, self._policy = backend, pace, policy
        self._send, self._clock = send, clock
        self.meanwhile = Meanwhile(listen, send, clock, leave, policy.abandoned_call_s)
        self._strips = strips_first_space
        self.queue = Queue(limit=policy.max_queue, limit_per_client=policy.max_queue_per_client)
        self._rate = TokenRate(policy.tokens_per_minute_per_uid)
        self.jobs: dict[int, Job] = {}
        self._turn_of = 0
        self.slots = Slots(backend, max_idle=policy.max_sessions)
        self.booking = Booking(backend.info, self.slots, policy, neighbours or Neighbours(), budget_bytes)
        self._short: Waiting | None = None  # the first request that waits for memory
        self.counts = dict.fromkeys(
            ("finished", "completion_tokens", "prompt_tokens", "cached_tokens", "book_errors", "given_back", "shed"), 0
        )

    # ---- what the worker hands in

    def submit(self, start: wire.Start) -> None:
        """A new request: tokenized at once, queued, and admitted by a later turn."""
        try:
            self._backend.rid = start.rid
            if start.op == "tokenize":
                ids = self._backend.encode_text(start.body["text"])
                self._send(wire.Result(start.rid, {"tokens": ids, "count": len(ids)}))
            elif start.op == "session.close":
                self._close_session(start)
            elif start.op in ("infer", "embed"):
                raise Unsupported(f"{start.op}: this is a language model; name a model that takes it, see `models`")
            else:
                self.queue.check_room(start.client, self._retry_ms())
                self._rate.check(start.uid, self._clock())
                most_tokens = self.booking.books().most_tokens
                self.queue.add(read_request(start, self._backend, self._pace, self._policy, most_tokens))
        except RequestError as error:
            self._refuse(start.rid, error)
        except Exception:
            log.exception("request failed rid=%d op=%s", start.rid, start.op)
            self._refuse(start.rid, Internal("edged failed on this request; its log has the details"))
        finally:
            self._backend.rid = 0

    def stop(self, rid: int, reason: str) -> None:
        """End a request early: `cancelled`, or `gone` when nobody is left to answer."""
        waiting = self.queue.find(rid)
        if waiting is not None:
            self.queue.take(waiting)
            if reason != "gone":
                self._refuse(rid, Cancelled("cancelled before it began"))
        elif rid in self.jobs:
            self._finish(self.jobs[rid], reason)

    @property
    def busy(self) -> bool:
        """Something runs, or could be admitted."""
        return bool(self.jobs or len(self.queue))

    @property
    def unsettled(self) -> bool:
        """Nothing runs, and `settle` would find something to do."""
        return not self.busy and (self.slots.ahead_tokens > 0 or self._unread is not None)

    def settle(self) -> None:
        """While nothing runs, for the next request: one slice of what the next turn of a session would have to read; or
        KV memory that it need not wait for."""
        self._backend.rid = 0
        if self._unread is not None:
            self.slots.reread(self._unread, self._pace.slice_tokens())
        else:
            self.slots.open_ahead(self._clock(), self.booking.has_room_ahead)
            self.booking.tell(self._short)

    @property
    def _unread(self) -> Kept | None:
        return self.slots.unread if self._policy.session_reread else None

    def turn(self) -> None:
        """One round of work."""
        self._expire()
        self._admit()
        self._read_slice()
        self._step()
        if not self.jobs:
            self._check_books()
        self.booking.tell(self._short)

    def rested(self, rest_s: float) -> None:
        """The worker let the box cool down: clients see it in their timings."""
        for job in self.jobs.values():
            job.throttled_s += rest_s

    def tick(self) -> None:
        """About once a second: close what has idled too long, is above a budget that has shrunk, or is wanted by
        another model of this box."""
        self.slots.give_back(max(-self.booking.books().free_bytes, self.booking.wanted_bytes()))
        now_s = self._clock()
        self.slots.expire(
            sessions_before_s=now_s - self._policy.session_idle_s, anonymous_before_s=now_s - self._policy.prefix_idle_s
        )
        self.booking.tell(self._short)

    def shed_newest(self) -> bool:
        """Under critical memory pressure: end the newest running request; False when none runs."""
        newest = max(self.jobs.values(), key=lambda job: job.accepted_s, default=None)
        if newest is not None:
            log.warning("memory pressure, newest request ended rid=%d", newest.rid)
            self.counts["shed"] += 1
            self._fail(newest, Busy("memory ran short on this device; try again", retry_after_ms=5000))
        return newest is not None

    # ---- a turn

    def _expire(self) -> None:
        now_s = self._clock()
        for waiting in self.queue.overdue(now_s):
            self.queue.take(waiting)
            self._refuse(waiting.start.rid, DeadlineExceeded("the deadline passed while the request waited its turn"))
        for job in list(self.jobs.values()):
            if job.start.deadline_s is not None and job.start.deadline_s <= now_s:
                self._finish(job, "deadline")

    def _admit(self) -> None:
        self._short = None
        if not len(self.queue):
            return
        place = 0
        blocked = False
        over_share = set[int]()
        for waiting in self.queue.in_order(self._clock()):
            if not blocked and waiting.start.uid not in over_share and not self._session_busy(waiting):
                outcome = self.booking.decide_and_promise(waiting)
                if not isinstance(outcome, Wait):
                    self.queue.take(waiting)
                    self._begin(waiting, outcome)
                    continue
                if outcome.reason == "share":
                    over_share.add(waiting.start.uid)  # who has used up their own share holds nobody else up
                else:
                    blocked = True  # nobody passes the first that waits for memory: large requests do not starve
                    self._short = waiting if outcome.reason == "memory" else None
            place += 1
            self._tell_place(waiting, place)

    def _session_busy(self, waiting: Waiting) -> bool:
        return waiting.session is not None and self.slots.busy(waiting.start.uid, waiting.session)

    def _begin(self, waiting: Waiting, outcome: Admit | Reject) -> None:
        start = waiting.start
        if isinstance(outcome, Reject):
            self._refuse(start.rid, too_large(len(waiting.prompt), waiting.max_tokens, outcome))
            return
        try:
            self._backend.rid = start.rid
            lease = self.slots.lease(
                f"request {start.rid}",
                start.uid,
                waiting.session,
                waiting.prompt,
                outcome.capacity_tokens,
                outcome.reclaim_bytes,
            )
        except Exception:
            log.exception("no slot rid=%d tokens=%d", start.rid, outcome.capacity_tokens)
            self._refuse(start.rid, Internal("the model could not allocate memory for this request"))
            return
        finally:
            self._backend.rid = 0
        words = [token for token in waiting.prompt if token >= 0] if waiting.pictures else waiting.prompt
        lease.slot.sampler = Sampler(sampling_of(start.body), words)
        stop = start.body["stop"]
        stops = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
        text = TextStream(stops, strip_first_space=self._strips and start.op == "chat")
        now_s = self._clock()
        begun = replace(start, frames=())  # its pictures were taken from them
        job = Job(begun, waiting.prompt, outcome.max_tokens, lease, text, now_s, lease.cached_tokens)
        job.pictures = waiting.pictures
        self.jobs[start.rid] = job
        self._send(
            wire.Accepted(
                start.rid,
                len(waiting.prompt),
                outcome.max_tokens,
                lease.kv_bytes,
                lease.cached_tokens,
                waiting.session,
                waiting.dropped_turns,
                sum(token < 0 for token in waiting.prompt) if waiting.pictures else None,
            )
        )

    def _read_slice(self) -> None:
        """One slice of one prompt, each reader in turn."""
        readers = [job for job in self.jobs.values() if job.reading]
        if not readers:
            return
        job = next((job for job in readers if job.rid > self._turn_of), readers[0])
        self._turn_of = job.rid
        self._flush_all()  # nobody's finished words wait for a slice
        if job.unseen:
            self._see(job)
            return
        in_time = job.start.deadline_s is None or self._backend.info.can_rewind  # else no call may be ended
        alone = len(self.jobs) == 1 and not job.made_way and in_time
        count = self._pace.slice_tokens(len(job.prompt) - job.read, alone=alone)
        is_long = count > self._pace.slice_tokens()
        end = job.read + count
        if end == len(job.prompt) - 1:
            end -= 1  # no token is read alone: see `Slot.read_tokens`
        tokens = job.prompt[job.read : end]
        interrupted = False
        try:
            self._backend.rid = job.rid
            self._backend.prefill(job.lease.slot, tokens, self._way_out(job, len(tokens)) if is_long else None)
        except Interrupted:
            interrupted = True  # acted on below: until then the exception holds what is to be freed
        except Exception:
            log.exception("prefill failed rid=%d", job.rid)
            self._fail(job, Internal("the model failed while it read this prompt"))
            return
        finally:
            self._backend.rid = 0
        if interrupted:
            self._interrupted(job)
            return
        job.read += len(tokens)
        if job.reading and len(job.prompt) - job.lease.cached_tokens >= PROGRESS_TOKENS:
            self._send(wire.Progress(job.rid, job.read, len(job.prompt)))

    def _way_out(self, job: Job, tokens: int) -> Callable[[], bool]:
        """Asked during a long slice: nobody waits for it any more, or somebody came before half of it was done.

        Who came can begin at once then, and what was read of the slice is read again; once per request at the most, so
        that it comes to its end.
        """
        half_s = self._clock() + tokens / self._pace.prefill_tps / 2
        can_rewind = self._backend.info.can_rewind

        def stopped() -> bool:
            makes_way = can_rewind and self.meanwhile.somebody_came and self._clock() < half_s
            return self.meanwhile.ends(job) or makes_way

        return stopped

    def _interrupted(self, job: Job) -> None:
        reason = self.meanwhile.reason(job)
        if reason:
            self._finish(job, reason, keep=self._backend.info.can_rewind)
        else:
            job.made_way = True

    def _see(self, job: Job) -> None:
        """The whole prompt up to its last picture: one native call, which all others wait for."""
        end = max(at + 1 for at, token in enumerate(job.prompt) if token < 0)
        if end == len(job.prompt) - 1:
            end += 1
        began_s = self._clock()
        queued = [waiting.start for waiting in self.queue.in_order(began_s)]
        alone = len(self.jobs) == 1

        def stopped() -> bool:
            return self.meanwhile.ends_untimely(job, queued, alone=alone)

        failed: RequestError | None = None
        try:
            self._backend.rid = job.rid
            self._backend.see(job.lease.slot, job.prompt[job.read : end], job.pictures, stopped)
        except Interrupted:
            pass  # not by this version of the library
        except RequestError as error:
            failed = error
        except Exception:
            log.exception("reading pictures failed rid=%d", job.rid)
            failed = Internal("the model failed while it read this prompt's pictures")
        finally:
            self._backend.rid = 0
            for other in self.jobs.values():
                if other is not job:
                    other.stalled_s += self._clock() - began_s
        if failed and not job.told_end_s:
            self._fail(job, failed)
            return
        job.read = end
        if job.told_end_s:
            self._finish(job, "gone", keep=False)
            return
        job.pictures = ()  # their memory is not needed any more
        if len(job.prompt) - job.lease.cached_tokens >= PROGRESS_TOKENS:
            self._send(wire.Progress(job.rid, job.read, len(job.prompt)))

    def _step(self) -> None:
        """One token for every stream that has read its prompt."""
        for job in [job for job in self.jobs.values() if not job.reading]:
            self._backend.rid = job.rid
            try:
                picked = self._backend.step([job.lease.slot])[0]
            except RequestError as error:
                self._fail(job, error)
                continue
            except Exception:
                log.exception("step failed rid=%d", job.rid)
                self._fail(job, Internal("the model failed while it answered"))
                continue
            finally:
                self._backend.rid = 0
            now_s = self._clock()
            for token in picked:
                reason = job.take(token, self._backend, now_s)
                if reason:
                    self._finish(job, reason)
                    break
            else:
                if now_s - job.last_flush_s >= self._policy.stream_interval_s:
                    job.flush(self._send, now_s)

    def _flush_all(self) -> None:
        now_s = self._clock()
        for job in self.jobs.values():
            job.flush(self._send, now_s)

    # ---- ends

    def _finish(self, job: Job, reason: str, *, keep: bool = True) -> None:
        """The answer is over: `stop`, `length`, `cancelled`, `deadline`, or `gone` without a word."""
        now_s = self._clock()
        del self.jobs[job.rid]
        self._rate.spend(job.start.uid, job.read - job.lease.cached_tokens + job.produced, now_s)
        self.counts["finished"] += 1
        self.counts["completion_tokens"] += job.produced
        self.counts["prompt_tokens"] += job.read - job.lease.cached_tokens
        self.counts["cached_tokens"] += job.lease.cached_tokens
        worth = reason in ("stop", "length") or (reason in ("cancelled", "deadline") and job.lease.session is not None)
        keep = keep and worth
        self.slots.end(job.lease, keep=keep, now_s=now_s)
        self.slots.give_back(self.booking.wanted_bytes())
        if reason != "gone":
            job.finish(reason, self._send, now_s)

    def _fail(self, job: Job, error: RequestError) -> None:
        del self.jobs[job.rid]
        self.slots.end(job.lease, keep=False, now_s=self._clock())
        self._refuse(job.rid, error)

    def _refuse(self, rid: int, error: RequestError) -> None:
        self._send(wire.Failed(rid, error.code, error.message, error.retry_after_ms, error.max_tokens_fit))

    # ---- reading requests, counting

    def _close_session(self, start: wire.Start) -> None:
        name = start.body["session"]
        if not self.slots.close_session(start.uid, name):
            raise NotFound("session: none of that name is idle for this user")
        self._send(wire.Result(start.rid, {"closed": name}))

    def _tell_place(self, waiting: Waiting, place: int) -> None:
        now_s = self._clock()
        if place != waiting.told_position and now_s - waiting.told_s >= TELL_PLACE_S:
            waiting.told_position, waiting.told_s = place, now_s
            self._send(wire.Queued(waiting.start.rid, place, self._pace.wait_ms(place, self._left_tokens())))

    def _left_tokens(self) -> list[int]:
        """What each running request still has to do; reading a token costs about a quarter of writing one."""
        return [job.left_tokens + (len(job.prompt) - job.read) // 4 for job in self.jobs.values()]

    def _retry_ms(self) -> int:
        return max(100, self._pace.wait_ms(len(self.queue) + 1, self._left_tokens()))

    def _check_books(self) -> None:
        wrong = self.slots.check_books()
        if wrong:
            self.counts["book_errors"] += 1
            log.error("memory books do not balance: %s", wrong)
