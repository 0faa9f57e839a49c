"""One answer put together from its events, whoever reads them. No sockets here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edged.client.errors import BadReply, error_of
from edged.client.replies import (
    Accepted,
    Answer,
    Delta,
    Event,
    Progress,
    Queued,
    made_from,
    timings_of,
    usage_of,
    without_envelope,
)


class Assembly:
    """`text` is what has come so far; `answer` is set by the last event, `ended` by that or by an error."""

    def __init__(self) -> None:
        self.accepted = Accepted()
        self.answer: Answer | None = None
        self.ended = False
        self._pieces: list[str] = []
        self._logprobs: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def take(self, reply: Mapping[str, Any]) -> Event | None:
        """The event in a reply; None for one this client does not know. Raises the RequestError of an `error`."""
        match reply.get("ev"):
            case "delta":
                delta = made_from(Delta, reply)
                self._pieces.append(delta.text)
                self._logprobs.extend(delta.logprobs)
                return delta
            case "queued":
                return made_from(Queued, reply)
            case "accepted":
                self.accepted = made_from(Accepted, reply)
                return self.accepted
            case "progress":
                return made_from(Progress, reply)
            case "done":
                return self._done(reply)
            case "error":
                self.ended = True
                raise error_of(reply)
            case None:
                raise BadReply("a reply without `ev`: is this an edged daemon?")
            case _:
                return None

    def _done(self, reply: Mapping[str, Any]) -> Answer:
        self.ended = True
        self.answer = Answer(
            text=self.text or str(reply.get("text") or ""),
            finish_reason=str(reply.get("finish_reason")),
            usage=usage_of(reply),
            timings=timings_of(reply),
            accepted=self.accepted,
            logprobs=tuple(self._logprobs) + tuple(reply.get("logprobs") or ()),
        )
        return self.answer


def progress_of(reply: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a `progress` event carries; None for any other reply."""
    return without_envelope(reply) if reply.get("ev") == "progress" else None


def result_of(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `result` of an op that does not generate. Raises the RequestError of an `error`."""
    if reply.get("ev") == "error":
        raise error_of(reply)
    if reply.get("ev") != "result":
        raise BadReply(f"a `result` was expected, {str(reply.get('ev'))[:40]!r} came: is this an edged daemon?")
    return reply
