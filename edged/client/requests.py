"""Request maps as edged/1 wants them. Values are passed on as they are: the daemon judges them and names the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from edged.client.errors import UsageError

VERSION = 1

UpdateOp = Literal["status", "check", "apply", "rollback", "hold"]

Message = Mapping[str, Any]
"""One turn: {"role": "system" | "user" | "assistant" | "tool", "content": text or a list of parts}."""


class SamplingOptions(TypedDict, total=False):
    """What `chat` and `generate` share; what is left out is the daemon's default (greedy, whole answer)."""

    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    num_beams: int
    logprobs: int
    stop: str | Sequence[str]
    session: str
    deadline_ms: int
    priority: int
    response_format: Mapping[str, Any]


class ChatOptions(SamplingOptions, total=False):
    """What only `chat` takes."""

    overflow: Literal["error", "truncate_oldest"]
    tools: Sequence[Mapping[str, Any]]


def request(op: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A request map without its id; fields that are None are left out, tuples become lists."""
    made: dict[str, Any] = {"v": VERSION, "op": op}
    for name, value in fields.items():
        if value is not None:
            made[name] = list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else value
    return made


def chat(messages: str | Sequence[Message], options: Mapping[str, Any]) -> dict[str, Any]:
    """A `chat` request; a bare text is one user turn. Streamed on the wire always: its events show that it lives."""
    turns: list[Message] = (
        [{"role": "user", "content": messages}] if isinstance(messages, str) else [dict(turn) for turn in messages]
    )
    return request("chat", {"messages": turns, "stream": True, **_checked(options)})


def generate(prompt: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A `generate` request: raw prompt text, no chat template."""
    return request("generate", {"prompt": prompt, "stream": True, **_checked(options)})


def update(what: UpdateOp, fields: Mapping[str, Any]) -> dict[str, Any]:
    """An `update.*` request."""
    return request(f"update.{what}", _checked(fields))


def _checked(options: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in ("v", "id", "op", "stream", "messages", "prompt"):
        if name in options:
            raise UsageError(f"{name}: set by the client itself, not an option")
    return options
