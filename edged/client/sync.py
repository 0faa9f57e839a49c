"""The blocking client. One thread at a time; several requests may be in flight, each with its own Stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self, Unpack, overload

from edged.client import plain, requests
from edged.client.assembly import Assembly, progress_of, result_of
from edged.client.connection import Connection, Key
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

DEFAULT_TIMEOUT_S = 30.0


class Client:
    """A connection to the daemon. Use it in a `with`, or `close()` it.

    `endpoint` None: EDGED_ENDPOINT, then the user's socket, then the system's; raises DaemonNotFound.
    `timeout_s`: the longest silence borne. For `chat` and `generate`, which may rightly queue for long, any sign of
    life counts, and the client asks for one; how long an answer may take in all is `deadline_ms`.
    `key`: for a daemon over TCP, the file that its admin made, or a `ClientKey`; None: the file EDGED_KEY_FILE names.
    """

    def __init__(self, endpoint: str | None = None, *, timeout_s: float = DEFAULT_TIMEOUT_S, key: Key = None) -> None:
        self._connection = Connection(endpoint, timeout_s, key)

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
    ) -> Answer: ...

    @overload
    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: Literal[True],
        attachments: Sequence[bytes] = (),
        **options: Unpack[ChatOptions],
    ) -> Stream: ...

    def chat(
        self,
        messages: str | Sequence[Message],
        *,
        stream: bool = False,
        attachments: Sequence[bytes] = (),
        **options: Unpack[ChatOptions],
    ) -> Answer | Stream:
        """Answer a conversation (or one question given as text): whole, or with stream=True piece by piece."""
        pending = self._connection.ask(requests.chat(messages, options), attachments, patient=True)
        running = Stream(self._connection, pending)
        return running if stream else running.result()

    @overload
    def generate(
        self, prompt: str, *, stream: Literal[False] = False, **options: Unpack[SamplingOptions]
    ) -> Answer: ...

    @overload
    def generate(self, prompt: str, *, stream: Literal[True], **options: Unpack[SamplingOptions]) -> Stream: ...

    def generate(self, prompt: str, *, stream: bool = False, **options: Unpack[SamplingOptions]) -> Answer | Stream:
        """Continue raw text, without a chat template."""
        running = Stream(self._connection, self._connection.ask(requests.generate(prompt, options), patient=True))
        return running if stream else running.result()

    def tokenize(self, text: str, *, model: str | None = None) -> Tokens:
        """The model's token ids of a text."""
        return made_from(Tokens, result_of(self._connection.call("tokenize", {"text": text, "model": model})))

    def infer(
        self,
        image: bytes | None = None,
        *,
        inputs: Mapping[str, Tensor] | None = None,
        **options: Unpack[InferOptions],
    ) -> Inference:
        """Run a plain ONNX model on one image (the bytes of a PNG, JPEG or WebP file) or on named tensors."""
        request, frames = plain.infer_request(image, inputs, options)
        return plain.inference_of(result_of(self._connection.call_with(request, frames, patient=True)))

    def embed(self, texts: str | Sequence[str], **options: Unpack[EmbedOptions]) -> Embedding:
        """One vector for each text (at most 256), from a text-embedding model."""
        request = plain.embed_request(texts, options)
        return plain.embedding_of(result_of(self._connection.call_with(request, patient=True)))

    def ping(self) -> float:
        """Seconds the daemon has been up."""
        return float(result_of(self._connection.call("ping", {})).get("uptime_s", 0.0))

    def hello(self) -> Hello:
        """What the daemon is and allows."""
        return made_from(Hello, result_of(self._connection.call("hello", {})))

    def status(self) -> Status:
        """How the daemon is: models, memory, queue, throughput."""
        return status_of(result_of(self._connection.call("status", {})))

    def models(self) -> tuple[Model, ...]:
        """The models this daemon has."""
        return models_of(result_of(self._connection.call("models", {})))

    def cancel(self, stream: Stream) -> bool:
        """Ask for an early end of a running answer, whose `done` then says `cancelled`; False: it had ended already."""
        reply = self._connection.call("cancel", {"target": stream.id})
        return reply.get("ev") == "result"

    def session_close(self, session: str, *, model: str | None = None) -> None:
        """Free what a session keeps. Raises NotFound when it keeps nothing, or is busy."""
        result_of(self._connection.call("session.close", {"session": session, "model": model}))

    def load(self, model: str, *, keep_s: float | None = None) -> Model:
        """For admins: bring an installed model into memory; returns when it can answer. `keep_s`: unload it when idle
        so long, 0 never. Raises Busy when what is in its way has work, Unavailable when it does not fit or load."""
        return self._move("load", {"model": model, "keep_s": keep_s})

    def unload(self, model: str) -> Model:
        """For admins: take a model out of memory. Raises Busy when it has work."""
        return self._move("unload", {"model": model})

    def _move(self, op: str, fields: dict[str, Any]) -> Model:
        pending = self._connection.ask(requests.request(op, fields), patient=True)
        try:
            moved = result_of(self._connection.receive(pending))
            return Model(name=str(moved.get("model", "")), state=str(moved.get("state", "")), raw=dict(moved))
        finally:
            self._connection.exchange.close(pending)

    def update(
        self, what: UpdateOp, *, progress: Callable[[dict[str, Any]], None] = lambda _: None, **fields: Any
    ) -> dict[str, Any]:
        """Model updates, for admins: `status`, `check`, `apply` (again), `rollback` (reason), `hold` (on, reason).

        `progress` is told how an errand of the updater goes: phase, version, bytes. Returns the `result`.
        """
        pending = self._connection.ask(requests.update(what, fields), patient=True)
        try:
            while (told := progress_of(reply := self._connection.receive(pending))) is not None:
                progress(told)
            return without_envelope(result_of(reply))
        finally:
            self._connection.exchange.close(pending)

    def close(self) -> None:
        """Leave. Answers still running are cancelled."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Stream(Iterator[str]):
    """A running answer: iterate over its text, or over `events()`. Closing it, or letting go of it, cancels.

    After the last piece `answer` holds text, usage and timings; `text` is what has come so far at any time.
    """

    def __init__(self, connection: Connection, pending: Pending) -> None:
        self._connection, self._pending = connection, pending
        self._assembly = Assembly()
        self._closed = False

    @property
    def id(self) -> int:
        """The request's id, as `cancel` wants it."""
        return self._pending.id

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

    def result(self) -> Answer:
        """Read what is left and return the whole answer."""
        for _ in self.events():
            pass
        if self.answer is None:
            raise UsageError("this stream was closed before its end; there is no whole answer")
        return self.answer

    def events(self) -> Iterator[Event]:
        """Queued, Accepted, Progress and Delta as they come, and the Answer last."""
        while not self._closed:
            try:
                event = self._assembly.take(self._connection.receive(self._pending))
            except BaseException:  # KeyboardInterrupt too: nobody will read the rest
                self.close()
                raise
            if self._assembly.ended:
                self.close()
            if event is not None:
                yield event

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        for event in self.events():
            if isinstance(event, Delta):
                return event.text
        raise StopIteration

    def close(self) -> None:
        """End it; an answer that still runs is cancelled and its memory freed."""
        if self._closed:
            return
        self._closed = True
        if self._assembly.ended:
            self._connection.exchange.close(self._pending)
        else:
            self._connection.abandon(self._pending)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()
