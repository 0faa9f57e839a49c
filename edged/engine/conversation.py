"""From a request body to prompt tokens, with whole old turns dropped when the client allows it and they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edged.errors import Unsupported

Turn = dict[str, Any]
Encode = Callable[[Sequence[Turn]], list[int]]


def plain_turns(messages: Sequence[Turn]) -> list[Turn]:
    """Messages with their parts joined into text. Raises Unsupported for images and video."""
    return [{"role": message["role"], "content": _text(message["content"])} for message in messages]


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    for part in content:
        if part["type"] != "text":
            raise Unsupported(f"messages: this model takes no {part['type']} parts")
    return "".join(part["text"] for part in content)


def fit(messages: Sequence[Turn], encode: Encode, most_tokens: int) -> tuple[list[int], int]:
    """Prompt tokens and how many messages were dropped so that they are at most `most_tokens`.

    The system message and the last message stay; what is left begins with a user message. When even that is too long
    it is returned as it is, for admission to refuse with numbers.
    """
    prompt = encode(messages)
    if len(prompt) <= most_tokens:
        return prompt, 0
    kept_first = 1 if messages[0]["role"] == "system" else 0
    cuts = [at for at in range(kept_first + 1, len(messages)) if messages[at]["role"] == "user"]
    low, high = 0, len(cuts)  # a longer cut never gives a longer prompt: bisect for the shortest that fits
    while low < high:
        middle = (low + high) // 2
        if len(encode([*messages[:kept_first], *messages[cuts[middle] :]])) <= most_tokens:
            high = middle
        else:
            low = middle + 1
    if not cuts:
        return prompt, 0
    cut = cuts[min(low, len(cuts) - 1)]
    return encode([*messages[:kept_first], *messages[cut:]]), cut - kept_first
