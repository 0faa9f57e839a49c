"""While a native call runs for one request: what comes from the front, and whether anybody waits for it still.

The library ends the reading of words when asked, but not that of pictures, which can take minutes (ADR 5). A client
hears of the end of its request at once all the same; a call that then goes on for long while others wait is left by
ending this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from edged.engine.job import Job, Send
from edged.errors import Cancelled
from edged.protocol import engine as wire


class Meanwhile:
    """`listen` gives the messages that have come; nothing is done about other requests before the call is over.

    `leave` ends this process in the middle of a call; `abandoned_call_s` is how long one may go on that nobody waits
    for, 0: for ever.
    """

    def __init__(
        self,
        listen: Callable[[], Sequence[wire.ToEngine]],
        send: Send,
        clock: Callable[[], float],
        leave: Callable[[], None] | None,
        abandoned_call_s: float,
    ) -> None:
        self._listen, self._send, self._clock, self._leave = listen, send, clock, leave
        self._abandoned_call_s = abandoned_call_s
        self._put_off: list[wire.ToEngine] = []

    def take_put_off(self) -> list[wire.ToEngine]:
        """The messages that came during the last calls, for the worker to hand in."""
        messages, self._put_off = self._put_off, []
        return messages

    def ends(self, job: Job) -> bool:
        """Asked during a call that can be ended: whether nobody waits for `job` any more."""
        self._put_off += self._listen()
        return bool(self.reason(job))

    def reason(self, job: Job) -> str:
        """Why: `cancelled`, `deadline` or `gone`; "" while somebody waits."""
        for message in self._put_off:
            if isinstance(message, wire.Stop) and message.rid == job.rid:
                return message.reason
            if isinstance(message, wire.Quit):
                return "gone"
        overdue = job.start.deadline_s is not None and job.start.deadline_s <= self._clock()
        return "deadline" if overdue else ""

    @property
    def somebody_came(self) -> bool:
        """Whether another request has come during the call that wants an answer of the model."""
        gone = {message.rid for message in self._put_off if isinstance(message, wire.Stop)}
        starts = [message for message in self._put_off if isinstance(message, wire.Start)]
        return any(start.op in ("chat", "generate") and start.rid not in gone for start in starts)

    def ends_untimely(self, job: Job, queued: Sequence[wire.Start], *, alone: bool) -> bool:
        """As `ends`, during a call that cannot be ended: the client is told at once.

        When the call has gone on for too long since, somebody waits for its end, and no other answer is under way
        (`alone`), what waits is handed back to the front, for the next engine, and this process ends.
        """
        if not self.ends(job):
            return False
        now_s = self._clock()
        if not job.told_end_s:
            job.told_end_s = now_s
            reason = self.reason(job)
            if reason != "gone":
                job.finish(reason, self._send, now_s)
        if alone and self._leave and self._must_end(now_s - job.told_end_s, waiting=bool(queued)):
            self._put_off += self._listen()
            self._hand_back(queued)
            self._leave()
        return True

    def _must_end(self, since_s: float, *, waiting: bool) -> bool:
        if any(isinstance(message, wire.Quit) for message in self._put_off):
            return True
        return 0 < self._abandoned_call_s <= since_s and (waiting or self.somebody_came)

    def _hand_back(self, queued: Iterable[wire.Start]) -> None:
        stopped = {message.rid: message.reason for message in self._put_off if isinstance(message, wire.Stop)}
        for start in [*queued, *(message for message in self._put_off if isinstance(message, wire.Start))]:
            if start.rid not in stopped:
                self._send(start)
            elif stopped[start.rid] != "gone":
                self._send(wire.Failed(start.rid, Cancelled.code, "cancelled before it began"))
