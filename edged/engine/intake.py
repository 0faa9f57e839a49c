"""From a start message to a request that can be queued: prompt tokens, limits, priority; and the refusal in numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edged.engine.admission import Reject
from edged.engine.announced import AnnouncedBackend
from edged.engine.conversation import Turn, fit, plain_turns
from edged.engine.job import Waiting
from edged.engine.pace import Pace
from edged.errors import TooLarge
from edged.protocol import engine as wire

if TYPE_CHECKING:
    from edged.engine.images.pictures import Picture


@dataclass(frozen=True, slots=True)
class Policy:
    """The owner's settings that matter here; names as in config."""

    default_max_tokens: int
    max_queue: int
    max_queue_per_client: int
    max_running: int
    max_sessions: int
    session_idle_s: float
    prefix_idle_s: float
    stream_interval_s: float
    tokens_per_minute_per_uid: int = 0
    kv_share_per_uid: float = 1.0
    max_priority: int = 9
    session_reread: bool = True
    abandoned_call_s: float = 0.0


def read_request(start: wire.Start, backend: AnnouncedBackend, pace: Pace, policy: Policy, most_tokens: int) -> Waiting:
    """Tokenize a request; `most_tokens` is the most that prompt and answer may have together.

    Raises InvalidRequest or Unsupported for what this model cannot take, and what decoding a picture does.
    """
    body = start.body
    dropped = None
    pictures: tuple[Picture, ...] = ()
    if start.op == "chat":
        turns = _turns(start, backend, pace, most_tokens)
        if body["overflow"] == "truncate_oldest":
            room = body["max_tokens"] or min(policy.default_max_tokens, most_tokens // 4)
            prompt, dropped = fit(turns, backend.encode_chat, most_tokens - room)
            first = 1 if turns[0]["role"] == "system" else 0
            del turns[first : first + dropped]
        else:
            prompt = backend.encode_chat(turns)
        if backend.info.most_crops:
            from edged.engine.images.pictures import pictures_in

            pictures = tuple(pictures_in(turns))
    else:
        prompt = backend.encode_text(body["prompt"])
    priority = body["priority"] if start.uid in (0, os.getuid()) else min(body["priority"], policy.max_priority)
    return Waiting(start, prompt, body["max_tokens"], body["session"], priority, dropped, pictures)


def _turns(start: wire.Start, backend: AnnouncedBackend, pace: Pace, most_tokens: int) -> list[Turn]:
    messages = start.body["messages"]
    if not backend.info.most_crops:
        return plain_turns(messages)
    from edged.engine.images.pictures import Sight, pictured_turns  # decoding is for engines that see

    sight = Sight(backend.info.most_crops, pace.seeing_tps, most_tokens, start.deadline_s)
    with backend.busy_for(sight.limits.decode_s * (1 + len(start.frames))):
        return pictured_turns(messages, start.frames, sight)


def too_large(prompt: int, max_tokens: int | None, outcome: Reject) -> TooLarge:
    """The refusal of a request whose prompt has `prompt` tokens: what it passes, and what would fit."""
    limit = "the model's context" if outcome.because == "context" else "the KV memory of this device"
    wanted = f" and max_tokens {max_tokens}" if max_tokens else ""
    advice = (
        f"ask for at most max_tokens {outcome.max_tokens_fit - prompt}"
        if outcome.max_tokens_fit > prompt
        else "shorten the prompt"
    )
    return TooLarge(
        f"a prompt of {prompt} tokens{wanted} passes {limit} ({outcome.max_tokens_fit} tokens); {advice}",
        max_tokens_fit=outcome.max_tokens_fit,
    )
