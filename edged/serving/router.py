"""The front's main road: a message comes in, is read, and either answered here or handed to the engine; what the engine
says goes back to the client that asked. Owns nothing but the wiring; `Streams` owns what is live.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import zmq

from edged.errors import (
    REQUEST_ERRORS,
    Busy,
    Cancelled,
    DeadlineExceeded,
    EngineLost,
    Internal,
    NotFound,
    RequestError,
    SlowConsumer,
    Unavailable,
    Unsupported,
)
from edged.protocol import engine as wire
from edged.protocol import messages as public
from edged.protocol.limits import WireLimits
from edged.serving.door import Client
from edged.serving.doors import Doors
from edged.serving.engine_link import EngineLink
from edged.serving.engines import Engines
from edged.serving.errands import Errands
from edged.serving.gate import Gate
from edged.serving.outbox import Envelope
from edged.serving.quarantine import Quarantine
from edged.serving.streams import BUSY_RETRY_MS, Stream, Streams
from edged.serving.validate import Refused, input_digest, read_request

log = logging.getLogger(__name__)


class Router:
    """Wires door, streams and engines together."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        limits: WireLimits,
        describe: Callable[[Router], dict[str, Any]],
        version: str,
        gate: Gate,
        doors: int = 1,
    ) -> None:
        self.limits = limits
        self.door = Doors(
            context,
            limits,
            on_request=self._request,
            on_gone=self._client_gone,
            on_slow=self._client_slow,
            expected=doors,
        )
        self.streams = Streams(limits)
        self.quarantine = Quarantine()
        self.gate = gate
        self.draining = False
        self.started_s = time.monotonic()
        self.counts: dict[str, int] = {}
        self._describe, self._version = describe, version
        self._engines: Engines | None = None
        self.errands = Errands(lambda rid, fields: self._last(rid, "result", **fields), self._fail)
        self.on_update: Callable[[public.AnyUpdate, Callable[..., None]], Awaitable[dict[str, Any]]] | None = None
        self.update_phases: Callable[[], dict[str, str]] = dict  # by model, for `status`
        self._idle = asyncio.Event()
        self._idle.set()

    # ---- composition and life

    def use(self, engines: Engines) -> None:
        """The engines that serve."""
        self._engines = engines

    @property
    def engines(self) -> Engines:
        assert self._engines is not None
        return self._engines

    def reconfigure(self, limits: WireLimits) -> None:
        """New ceilings for what comes from now on."""
        self.limits = limits
        self.door.limits = limits
        self.streams.limits = limits

    def drain(self) -> None:
        """Refuse new work from now on."""
        self.draining = True
        self.errands.leave_all("edged is stopping; what was begun goes on after its restart")

    async def wait_idle(self) -> None:
        """Return when no request is live."""
        await self._idle.wait()

    def end_all(self, reason: str) -> None:
        """Answer every live request with `unavailable`: the daemon stops now."""
        for stream in self.streams:
            self._fail(stream.rid, Unavailable(reason))

    # ---- from clients

    def _request(self, client: Client, envelope: Envelope, frames: Sequence[zmq.Frame]) -> None:
        received_s = time.monotonic()
        check_op = functools.partial(self.gate.check, client)
        read = read_request(frames, self.limits, single_reply=client.single_reply, check_op=check_op)
        if isinstance(read, Refused):
            self._refuse(client, envelope, read.id, read.error)
            return
        request, attachments = read
        try:
            self._dispatch(client, envelope, request, attachments, received_s)
        except RequestError as error:
            self._refuse(client, envelope, request.id, error)
        except Exception:
            log.exception("request failed in the front op=%s uid=%d", request.op, client.uid)
            self._refuse(client, envelope, request.id, Internal("edged has a bug here; its log has the details"))

    def _dispatch(
        self,
        client: Client,
        envelope: Envelope,
        request: public.AnyRequest,
        attachments: tuple[bytes, ...],
        received_s: float,
    ) -> None:
        self.counts[request.op] = self.counts.get(request.op, 0) + 1
        self.gate.note(client, request)
        match request:
            case public.Ping():
                self._result(client, envelope, request.id, {"uptime_s": round(received_s - self.started_s, 3)})
            case public.Hello():
                self._result(client, envelope, request.id, self._hello(client))
            case public.Status():
                self._result(client, envelope, request.id, self._describe(self))
            case public.Models():
                self._result(client, envelope, request.id, {"models": self._models()})
            case public.Cancel():
                self._cancel(client, envelope, request)
            case public.Load() | public.Unload():
                self._load(client, envelope, request, received_s)
            case public.UpdateRequest():
                self._send_on_errand(client, envelope, request, received_s)
            case _:
                self._submit(client, envelope, request, attachments, received_s)

    def _submit(
        self,
        client: Client,
        envelope: Envelope,
        request: public.Chat | public.Generate | public.Tokenize | public.Infer | public.Embed | public.SessionClose,
        attachments: tuple[bytes, ...],
        received_s: float,
    ) -> None:
        if self.draining:
            raise Unavailable("edged is draining and takes no new work; try again after its restart")
        if not client.welcome:
            raise Busy(f"{self.limits.max_clients} clients are connected, the most there may be", retry_after_ms=1000)
        self.engines.check(request.model)
        digest = input_digest(request, attachments)
        self.quarantine.check(digest)
        deadline_ms = getattr(request, "deadline_ms", None)
        deadline_s = received_s + deadline_ms / 1000 if deadline_ms else None
        attached_bytes = sum(map(len, attachments))
        stream = self.streams.open(
            client, envelope, request.id, request.op, digest, received_s, deadline_s, attached_bytes
        )
        self._idle.clear()
        body = request.model_dump(exclude={"v", "id", "op", "model", "deadline_ms", "stream"})
        wants_stream = getattr(request, "stream", False)
        start = wire.Start(
            stream.rid,
            client.uid,
            client.routing_id,
            request.op,
            body,
            received_s,
            deadline_s,
            wants_stream,
            attachments,
        )
        try:
            self.engines.submit(request.model, start)
        except RequestError:
            self._end(stream.rid)
            raise
        self._mind_deadline(start)

    def _load(
        self, client: Client, envelope: Envelope, request: public.Load | public.Unload, received_s: float
    ) -> None:
        if self.draining:
            raise Unavailable("edged is draining and loads nothing now; try again after its restart")
        self.engines.check(request.model)
        stream = self.streams.open(client, envelope, request.id, request.op, b"", received_s, None)
        self._idle.clear()
        self.errands.begin(stream.rid, self._loaded(request))

    async def _loaded(self, request: public.Load | public.Unload) -> dict[str, Any]:
        if isinstance(request, public.Unload):
            link = await self.engines.unload(request.model)
        else:
            link = await self.engines.load(request.model)
            if request.keep_s is not None:
                link.idle_s = request.keep_s
        return {"model": link.name, "state": link.state.value}

    def _send_on_errand(self, client: Client, envelope: Envelope, request: public.AnyUpdate, received_s: float) -> None:
        if self.draining:
            raise Unavailable("edged is draining and changes nothing now; try again after its restart")
        if self.on_update is None:
            raise Unsupported("this daemon does not follow updates; another one does, or follow_updates is off")
        stream = self.streams.open(client, envelope, request.id, request.op, b"", received_s, None)
        tell = functools.partial(self._event, stream.rid, "progress")
        self.errands.begin(stream.rid, self.on_update(request, tell))

    def _cancel(self, client: Client, envelope: Envelope, request: public.Cancel) -> None:
        stream = self.streams.find(client, request.target)
        if stream is None:
            raise NotFound("target: this client has no live request with that id")
        self._result(client, envelope, request.id, {"cancelled": True})
        if self.errands.leave(stream.rid):
            self._fail(stream.rid, Cancelled("you are told no more of it; the work itself goes on"))
            return
        if self.engines.stop_request(stream.rid, "cancelled"):
            self._fail(stream.rid, Cancelled("cancelled before the model was ready"))

    def _mind_deadline(self, start: wire.Start) -> None:
        """While it waits for an engine, which minds the deadlines of what it has."""
        if start.deadline_s is not None and self.engines.waits(start.rid):
            asyncio.get_running_loop().call_later(start.deadline_s - time.monotonic(), self._deadline, start.rid)

    def _deadline(self, rid: int) -> None:
        """Only what the engine does not have yet is ended here; the engine minds its own deadlines."""
        waits = self.streams.get(rid) is not None and self.engines.waits(rid)
        if waits and self.engines.stop_request(rid, "gone"):
            self._fail(rid, DeadlineExceeded("the deadline passed before the model was ready"))

    def _client_gone(self, client: Client) -> None:
        for stream in self.streams.of(client):
            log.info("client gone %s", stream.label())
            self._end(stream.rid)
            self.errands.leave(stream.rid)
            self.engines.stop_request(stream.rid, "gone")

    def _client_slow(self, client: Client, envelope: Envelope) -> None:
        log.warning("client does not read uid=%d live=%d", client.uid, len(self.streams.of(client)))
        for stream in self.streams.of(client):
            self.errands.leave(stream.rid)
            self.engines.stop_request(stream.rid, "gone")
            self._fail(stream.rid, SlowConsumer("this client left its replies unread; read faster or ask for less"))
        notice = SlowConsumer(
            "too many replies lay unread: requests sent after this, until all was read, are not taken"
        )
        self._refuse(client, envelope, None, notice)

    # ---- from the engine

    def on_engine(self, message: wire.ToFront) -> None:
        """One message of the engine's; what concerns a request that has ended is dropped."""
        match message:
            case wire.Delta():
                self._event(message.rid, "delta", text=message.text, logprobs=message.logprobs)
            case wire.Done():
                self._last(
                    message.rid,
                    "done",
                    finish_reason=message.finish_reason,
                    usage=message.usage,
                    timings=message.timings,
                    text=message.text,
                    logprobs=message.logprobs,
                )
            case wire.Accepted():
                self._event(
                    message.rid,
                    "accepted",
                    prompt_tokens=message.prompt_tokens,
                    max_tokens=message.max_tokens,
                    kv_bytes=message.kv_bytes,
                    cached_tokens=message.cached_tokens,
                    session=message.session,
                    dropped_turns=message.dropped_turns,
                    image_tokens=message.image_tokens,
                )
            case wire.Queued():
                self._event(message.rid, "queued", position=message.position, wait_ms=message.wait_ms)
            case wire.Progress():
                self._event(
                    message.rid,
                    "progress",
                    prompt_tokens_read=message.prompt_tokens_read,
                    prompt_tokens=message.prompt_tokens,
                )
            case wire.Result():
                self._answer(message)
            case wire.Start():
                self._mind_deadline(message)
            case wire.Failed():
                kind = REQUEST_ERRORS.get(message.code, Internal)
                self._fail(
                    message.rid,
                    kind(message.message, retry_after_ms=message.retry_after_ms, max_tokens_fit=message.max_tokens_fit),
                )
            case _:
                pass

    def _answer(self, result: wire.Result) -> None:
        stream = self.streams.get(result.rid)
        if stream is None or self.door.has_room(stream.client, sum(map(len, result.frames))):
            self._last(result.rid, "result", frames=result.frames, **result.fields)
        elif self.door.unread_of(stream.client):
            self._fail(result.rid, SlowConsumer("earlier replies lie unread, and this one is too large to wait"))
        else:
            why = "replies that other clients leave unread take the room that this one needs"
            self._fail(result.rid, Busy(why, retry_after_ms=BUSY_RETRY_MS))

    def on_lost(self, link: EngineLink, suspect_rid: int, why: str) -> None:
        """An engine ended: every request it had is answered now; the one in the native call is remembered."""
        suspect = self.streams.get(suspect_rid)
        quarantined = suspect is not None and self.quarantine.strike(suspect.digest)
        for rid in link.live - link.held.keys():
            stream = self.streams.get(rid)
            if stream is None:
                continue
            if quarantined and stream is suspect:
                log.error("input quarantined %s", stream.label())
                self._fail(stream.rid, Quarantine.error())
            else:
                lost = EngineLost(
                    "the engine ended and is being restarted; send the request again", retry_after_ms=1000
                )
                self._fail(stream.rid, lost)

    # ---- replies

    def _event(self, rid: int, event: str, **fields: Any) -> None:
        stream = self.streams.get(rid)
        if stream is not None and not stream.silent:
            self.door.send(stream.client, stream.envelope, public.reply(stream.id, event, **fields))

    def _last(self, rid: int, event: str, *, frames: tuple[bytes, ...] = (), **fields: Any) -> None:
        stream = self._end(rid)
        if stream is not None:
            self.door.send(stream.client, stream.envelope, public.reply(stream.id, event, **fields), frames)

    def _fail(self, rid: int, error: RequestError) -> None:
        stream = self.streams.get(rid)
        if stream is not None:
            log.info("request refused %s code=%s", stream.label(), error.code)
            self._count(error)
            self._last(rid, "error", **public.error_fields(error))

    def _end(self, rid: int) -> Stream | None:
        stream = self.streams.end(rid)
        if not len(self.streams):
            self._idle.set()
        return stream

    def _refuse(self, client: Client, envelope: Envelope, id_: int | str | None, error: RequestError) -> None:
        self._count(error)
        self.door.send(client, envelope, public.reply(id_, "error", **public.error_fields(error)))

    def _count(self, error: RequestError) -> None:
        name = f"error.{error.code}"
        self.counts[name] = self.counts.get(name, 0) + 1

    def _result(self, client: Client, envelope: Envelope, id_: int | str, fields: dict[str, Any]) -> None:
        self.door.send(client, envelope, public.reply(id_, "result", **fields))

    def _hello(self, client: Client) -> dict[str, Any]:
        return {
            "protocol": f"edged/{public.VERSION}",
            "version": self._version,
            "ops": self.gate.ops(client),
            "limits": self.limits.to_map(),
            "models": [model["name"] for model in self._models()],
        }

    def _models(self) -> list[dict[str, Any]]:
        known = [describe_link(link) for link in self.engines]
        return known + [{"name": name, "state": "unloaded"} for name in self.engines.on_disk_only()]


def describe_link(link: EngineLink) -> dict[str, Any]:
    """A model as `models` and `status` list it; what the engine said of itself on its load is part of it."""
    known = {"name": link.name, "version": link.version or None, "state": link.state.value}
    return {**known, "reason": link.reason or None, **link.info}
