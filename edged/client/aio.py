"""The asyncio client: many requests in flight on one connection, each awaited or iterated by its own task."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from edged.client import plain, requests
from edged.client.aio_connection import AsyncConnection
from edged.client.assembly import Assembly, progress_of, result_of
from edged.client.connection import Key
from edged.client.errors import UsageError
from edged.client.exchange import Pending
from edged.client.plain import Embedding, EmbedOptions, Inference, InferOptions, Tensor
from edged.client.replies import (
    Accepted,
    Answer,
    Delta,
    Event,
    Hello,
    Model,
    Status,
    Tokens,
    made_from,
    models_of,
    status_of,
    without_envelope,
)
from edged.client.requests import ChatOptions, Message, SamplingOptions, UpdateOp
from edged.client.sync import DEFAULT_TIMEOUT_S


class AsyncClient:
    """As `Client`, for one event loop: `async with AsyncClient() as client`."""

    def __init__(self, endpoint: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S, key: Key = None) -> None:
        self._connection = AsyncConnection(endpoint, timeout_s, key)

    @property
    def endpoint(self) -> str:
        """Where this client found the daemon."""
        return self._connection.endpoint

    @overload
    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: Literal[False] = False,
        attachments: Sequence[bytes] = (),
        **options: Unpack[ChatOptions],
    ) -> Awaitable[Answer]: ...

    @overload
    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: Literal[True],
        attachments: Sequence[bytes] = (),
        **options: Unpack[ChatOptions],
    ) -> AsyncStream: ...

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: bool = False,
        attachments: Sequence[bytes] = (),
        **options: Unpack[ChatOptions],
    ) -> Awaitable[Answer] | AsyncStream:
        """Answer a conversation (or one question given as text): `await` it, or with stream=True iterate over it."""
        running = AsyncStream(self._connection, requests.chat(messages, options), attachments)
        return running if stream else running.result()

    @overload
    def generate(
        self, prompt: str, *, stream: Literal[False] = False, **options: Unpack[SamplingOptions]
    ) -> Awaitable[Answer]: ...

    @overload
    def generate(self, prompt: str, *, stream: Literal[True], **options: Unpack[SamplingOptions]) -> AsyncStream: ...

    def generate(
        self, prompt: str, *, stream: bool = False, **options: Unpack[SamplingOptions]
    ) -> Awaitable[Answer] | AsyncStream:
        """Continue raw text, without a chat template."""
        running = AsyncStream(self._connection, requests.generate(prompt, options), ())
        return running if stream else running.result()

    async def tokenize(self, text: str, *, model: str | None = None) -> Tokens:
        """The model's token ids of a text."""
        return made_from(Tokens, result_of(await self._connection.call("tokenize", {"text": text, "model": model})))

    async def infer(
        self,
        image: bytes | None = None,
        *,
        inputs: Mapping[str, Tensor] | None = None,
        **options: Unpack[InferOptions],
    ) -> Inference:
        """Run a plain ONNX model on one image (the bytes of a PNG, JPEG or WebP file) or on named tensors."""
        request, frames = plain.infer_request(image, inputs, options)
        return plain.inference_of(result_of(await self._connection.call_with(request, frames, patient=True)))

    async def embed(self, texts: str | Sequence[str], **options: Unpack[EmbedOptions]) -> Embedding:
        """One vector for each text (at most 256), from a text-embedding model."""
        request = plain.embed_request(texts, options)
        return plain.embedding_of(result_of(await self._connection.call_with(request, patient=True)))

    async def ping(self) -> float:
        """Seconds the daemon has been up."""
        return float(result_of(await self._connection.call("ping", {})).get("uptime_s", 0.0))

    async def hello(self) -> Hello:
        """What the daemon is and allows."""
        return made_from(Hello, result_of(await self._connection.call("hello", {})))

    async def status(self) -> Status:
        """How the daemon is: models, memory, queue, throughput."""
        return status_of(result_of(await self._connection.call("status", {})))

    async def models(self) -> tuple[Model, ...]:
        """The models this daemon has."""
        return models_of(result_of(await self._connection.call("models", {})))

    async def cancel(self, stream: AsyncStream) -> bool:
        """Ask for an early end of a running answer, whose `done` then says `cancelled`; False: it had ended already."""
        if stream.id is None:
            raise UsageError("this stream was not started; iterate over it first")
        reply = await self._connection.call("cancel", {"target": stream.id})
        return reply.get("ev") == "result"

    async def session_close(self, session: str, *, model: str | None = None) -> None:
        """Free what a session keeps. Raises NotFound when it keeps nothing, or is busy."""
        result_of(await self._connection.call("session.close", {"session": session, "model": model}))

    async def load(self, model: str, *, keep_s: float | None = None) -> Model:
        """For admins: bring an installed model into memory; returns when it can answer. `keep_s`: unload it when idle
        so long, 0 never. Raises Busy when what is in its way has work, Unavailable when it does not fit or load."""
        return await self._move("load", {"model": model, "keep_s": keep_s})

    async def unload(self, model: str) -> Model:
        """For admins: take a model out of memory. Raises Busy when it has work."""
        return await self._move("unload", {"model": model})

    async def _move(self, op: str, fields: dict[str, Any]) -> Model:
        pending = await self._connection.ask(requests.request(op, fields), patient=True)
        try:
            moved = result_of(await self._connection.receive(pending))
            return Model(name=str(moved.get("model", "")), state=str(moved.get("state", "")), raw=dict(moved))
        finally:
            self._connection.forget(pending)

    async def update(
        self, what: UpdateOp, *, progress: Callable[[dict[str, Any]], None] = lambda _: None, **fields: Any
    ) -> dict[str, Any]:
        """Model updates, for admins: `status`, `check`, `apply` (again), `rollback` (reason), `hold` (on, reason).

        `progress` is told how an errand of the updater goes: phase, version, bytes. Returns the `result`.
        """
        pending = await self._connection.ask(requests.update(what, fields), patient=True)
        try:
            while (told := progress_of(reply := await self._connection.receive(pending))) is not None:
                progress(told)
            return without_envelope(result_of(reply))
        finally:
            self._connection.forget(pending)

    async def close(self) -> None:
        """Leave. Answers still running are cancelled."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncStream:
    """A running answer: `async for` over its text, or over `events()`. It is sent when first read.

    Leaving it early (`aclose`, the end of its `async with`, a cancelled task) cancels the request.
    """

    def __init__(self, connection: AsyncConnection, request: Mapping[str, Any], attachments: Sequence[bytes]) -> None:
        self._connection, self._request, self._attachments = connection, request, attachments
        self._pending: Pending | None = None
        self._assembly = Assembly()
        self._closed = False

    @property
    def id(self) -> int | None:
        """The request's id, as `cancel` wants it; None until it was sent."""
        return self._pending.id if self._pending else None

    @property
    def text(self) -> str:
        return self._assembly.text

    @property
    def accepted(self) -> Accepted:
        """Sizes told when work began; zeros until then."""
        return self._assembly.accepted

    @property
    def answer(self) -> Answer | None:
        """The whole answer, None until it has ended."""
        return self._assembly.answer

    async def result(self) -> Answer:
        """Read what is left and return the whole answer."""
        async for _ in self.events():
            pass
        if self.answer is None:
            raise UsageError("this stream was closed before its end; there is no whole answer")
        return self.answer

    async def events(self) -> AsyncIterator[Event]:
        """Queued, Accepted, Progress and Delta as they come, and the Answer last."""
        while (event := await self._next()) is not None:
            yield event

    async def _next(self) -> Event | None:
        while not self._closed:
            try:
                if self._pending is None:
                    self._pending = await self._connection.ask(self._request, self._attachments, patient=True)
                event = self._assembly.take(await self._connection.receive(self._pending))
            except BaseException:  # a cancelled task too: nobody will read the rest
                self._close()
                raise
            if self._assembly.ended:
                self._close()
            if event is not None:
                return event
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while (event := await self._next()) is not None:
            if isinstance(event, Delta):
                return event.text
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it; an answer that still runs is cancelled and its memory freed."""
        self._close()
        await asyncio.sleep(0)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._pending is None:
            return
        if self._assembly.ended:
            self._connection.forget(self._pending)
        else:
            self._connection.abandon(self._pending)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._close()
