"""What comes back, as frozen dataclasses. Fields the client does not know are ignored, missing ones have a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from edged.client.errors import BadReply

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass(frozen=True, slots=True)
class Queued:
    """It must wait: its place (1 is next) and an estimate."""

    position: int = 0
    wait_ms: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """Memory is reserved and work begins. `max_tokens` is what the answer may have at most."""

    prompt_tokens: int = 0
    max_tokens: int = 0
    kv_bytes: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    session: str | None = None
    dropped_turns: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long prompt was read."""

    prompt_tokens_read: int = 0
    prompt_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """The next piece of the answer; may hold several tokens."""

    text: str = ""
    logprobs: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds as the daemon measured them; what did not happen is None (an answer of one token has no pace).

    `throttled_ms`: the box had to cool. `stalled_ms`: it waited while another request's pictures were read.
    """

    queue_ms: float = 0.0
    prefill_ms: float | None = None
    ttft_ms: float | None = None
    decode_tps: float | None = None
    throttled_ms: float = 0.0
    stalled_ms: float = 0.0
    total_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `finish_reason`: `stop` `length` `cancelled` `deadline` `tool_calls`."""

    text: str
    finish_reason: str
    usage: Usage = Usage()
    timings: Timings = Timings()
    accepted: Accepted = Accepted()
    logprobs: tuple[dict[str, Any], ...] = ()


Event = Queued | Accepted | Progress | Delta | Answer
"""What a stream yields in `events()`; the last one is the Answer."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What the daemon is and allows: protocol (`edged/1`), ops this client may use, limits by name, model names."""

    protocol: str = ""
    version: str = ""
    ops: tuple[str, ...] = ()
    limits: dict[str, float] = field(default_factory=dict)
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids of a text, control tokens in it read as plain text."""

    tokens: tuple[int, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """An installed model. `state`: `unloaded` `loading` `ready` `lost` `failed`; `raw` is the whole map as sent."""

    name: str = ""
    state: str = ""
    reason: str | None = None
    type: str | None = None
    provider: str | None = None
    context_tokens: int | None = None
    weights_bytes: int | None = None
    kv_bytes_per_token: int | None = None
    load_s: float | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Status:
    """How the daemon is. `models` as in Model; `raw` is the whole map, memory ledger and counters included."""

    version: str = ""
    uptime_s: float = 0.0
    draining: bool = False
    models: tuple[Model, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict, repr=False)


def made_from(kind: type[T], reply: Mapping[str, Any]) -> T:
    """A flat reply as `kind`: known fields only, lists as tuples. Raises BadReply when the reply cannot be one."""
    known = {}
    for name in kind.__dataclass_fields__:
        value = reply.get(name)
        if value is not None:
            known[name] = tuple(value) if isinstance(value, list) else value
    return kind(**known)


def usage_of(reply: Mapping[str, Any]) -> Usage:
    """The `usage` map of a `done` event."""
    return made_from(Usage, _map(reply, "usage"))


def timings_of(reply: Mapping[str, Any]) -> Timings:
    """The `timings` map of a `done` event."""
    return made_from(Timings, _map(reply, "timings"))


def models_of(reply: Mapping[str, Any]) -> tuple[Model, ...]:
    """The `models` list of a `models` or `status` result."""
    listed = reply.get("models", [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        raise BadReply("the reply's `models` is not a list of maps: is this an edged daemon?")
    return tuple(made_from(Model, {**entry, "raw": entry}) for entry in listed)


def status_of(reply: Mapping[str, Any]) -> Status:
    """A `status` result."""
    raw = without_envelope(reply)
    return made_from(Status, {**raw, "models": list(models_of(reply)), "raw": raw})


def without_envelope(reply: Mapping[str, Any]) -> dict[str, Any]:
    """A reply's own fields."""
    return {name: value for name, value in reply.items() if name not in ("v", "id", "ev", "attachments")}


def _map(reply: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = reply.get(name, {})
    if not isinstance(value, dict):
        raise BadReply(f"the reply's `{name}` is not a map: is this an edged daemon?")
    return value
