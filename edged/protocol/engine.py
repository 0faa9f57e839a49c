"""The private messages between front and engine, one frozen dataclass each; same codec, own lifetime.

`encode` and `decode` turn them into frames and back: one frame, and behind it the attachments of a `Start` or `Result`,
raw. Both ends are ours and of one version: a message that does not decode is a bug and raises TypeError or KeyError.
Times `*_s` are CLOCK_MONOTONIC seconds, one clock for both processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from edged.protocol.codec import pack, unpack_trusted

# ---- front to engine ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Run one `chat`, `generate`, `tokenize`, `session.close`, `infer` or `embed`. `body` is the validated request.

    `received_s` is when the front had it whole; `deadline_s` is absolute or None; `stream`: deltas are wanted.
    `frames` are the client's attachments, which `body` names by index; all of them were sent.
    """

    rid: int
    uid: int
    client: bytes
    op: str
    body: dict[str, Any]
    received_s: float
    deadline_s: float | None
    stream: bool
    frames: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """End request `rid` early; `reason` is `cancelled` or `gone` (nobody is left to answer)."""

    rid: int
    reason: str


@dataclass(frozen=True, slots=True)
class Quit:
    """Leave the loop and exit 0."""


# ---- engine to front ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and has answered its warm-up. `info` is shown by `models` and `status`."""

    info: dict[str, Any]


NO_ROOM = "does not fit into memory"
"""How the reason of a LoadFailed begins that is the box's fault, not the model's."""


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """The model cannot be loaded. `file` is relative to its folder; `reason` and `file` may go on the wire."""

    file: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Loading:
    """Where the load stands: a short phrase for people, and the provider's key once that is chosen."""

    phase: str
    provider: str = ""


@dataclass(frozen=True, slots=True)
class Queued:
    rid: int
    position: int
    wait_ms: int


@dataclass(frozen=True, slots=True)
class Accepted:
    rid: int
    prompt_tokens: int
    max_tokens: int
    kv_bytes: int
    cached_tokens: int
    session: str | None = None
    dropped_turns: int | None = None
    image_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    rid: int
    prompt_tokens_read: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Delta:
    rid: int
    text: str
    logprobs: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    rid: int
    finish_reason: str
    usage: dict[str, int]
    timings: dict[str, float]
    text: str | None = None
    logprobs: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The answer of an op that does not generate; `frames` are its attachments, which `fields` names by index."""

    rid: int
    fields: dict[str, Any]
    frames: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    rid: int
    code: str
    message: str
    retry_after_ms: int | None = None
    max_tokens_fit: int | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """The engine's own view: ledger, queue, throughput. Sent when it changes and about once a second while busy."""

    values: dict[str, Any] = field(default_factory=dict)


LEFT_A_CALL = 4
"""Exit status of an engine that ended itself to be rid of a native call that nobody waited for any more. Before that it
sent back each `Start` that it had not begun."""


ToEngine = Start | Stop | Quit
ToFront = Start | Ready | LoadFailed | Loading | Queued | Accepted | Progress | Delta | Done | Result | Failed | Stats
AnyMessage = ToEngine | ToFront

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Start,
        Stop,
        Quit,
        Ready,
        LoadFailed,
        Loading,
        Queued,
        Accepted,
        Progress,
        Delta,
        Done,
        Result,
        Failed,
        Stats,
    )
}
_FIELDS = {name: tuple(part.name for part in fields(kind) if part.name != "frames") for name, kind in _KINDS.items()}


def encode(message: AnyMessage) -> list[bytes]:
    """One private message as the frames to send."""
    name = type(message).__name__
    packed = pack({"t": name, "f": [getattr(message, part) for part in _FIELDS[name]]})
    return [packed, *message.frames] if isinstance(message, Start | Result) else [packed]


def decode(frames: Sequence[bytes | memoryview]) -> AnyMessage:
    """The private message in these frames; its attachments are not copied."""
    raw = unpack_trusted(frames[0])
    attached = {"frames": tuple(frames[1:])} if len(frames) > 1 else {}
    message: AnyMessage = _KINDS[raw["t"]](*raw["f"], **attached)
    return message
