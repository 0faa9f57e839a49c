"""Pictures of a conversation: decoded, scaled, and with their cost in tokens known, before anything native sees them.

In the prompt of the engine a picture is a run of one negative number made from its pixels, so that two prompts share a
beginning only where they share the picture too. The backend knows what its model wants to see there instead.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from edged.engine.images import ImageLimits, decode_image
from edged.engine.images.crops import MOST_CROPS, Grid, fit, scaled
from edged.errors import InvalidRequest

FEW_CROPS = 4  # what the makers of Phi-3.5-vision advise for several pictures
AUTO_READ_S = 5.0  # `auto` takes no more detail than can be read in this time…
DEADLINE_SHARE = 0.5  # …or in this share of what is left until the deadline
SEEING_COST = 1.5  # encoding a picture and reading its tokens, against reading as many tokens of text


@dataclass(frozen=True, slots=True)
class Picture:
    """An RGB picture scaled to whole squares of 336 pixels, and what it is called in prompts."""

    token: int
    image: Image.Image
    grid: Grid

    @property
    def tokens(self) -> list[int]:
        return [self.token] * self.grid.tokens


@dataclass(frozen=True, slots=True)
class Sight:
    """What decides how closely pictures are looked at. `most_crops` is the model's own limit; `prefill_tps` as measured
    (0: not yet); `most_tokens` is what prompt and answer may have together."""

    most_crops: int
    prefill_tps: float
    most_tokens: int
    deadline_s: float | None = None
    limits: ImageLimits = ImageLimits()


Content = list[str | Picture]


def pictured_turns(messages: Sequence[dict[str, Any]], frames: Sequence[bytes], sight: Sight) -> list[dict[str, Any]]:
    """Messages whose content is a list of texts and pictures.

    Raises what `decode_image` does, naming the message.
    """
    wishes = _wishes(messages, sight)
    budget = _auto_tokens(wishes, sight)
    turns = []
    for number, message in enumerate(messages):
        content: Content = []
        if isinstance(message["content"], str):
            content.append(message["content"])
        else:
            for part in message["content"]:
                for frame, said in _shown(part, wishes, sight):
                    content.append(said)
                    if frame is not None:
                        many = wishes.pictures > 1
                        picture = _picture(frames, frame, part["detail"], budget, sight, number, many=many)
                        content.append(picture)
        turns.append({"role": message["role"], "content": content})
    return turns


def pictures_in(turns: Sequence[dict[str, Any]]) -> list[Picture]:
    """All pictures of these turns, in order."""
    return [piece for turn in turns for piece in turn["content"] if isinstance(piece, Picture)]


def seen_end(prompt: Sequence[int]) -> int:
    """How far a prompt must be read in one piece, since its pictures are read with what stands before them."""
    return next((at + 1 for at in range(len(prompt) - 1, -1, -1) if prompt[at] < 0), 0)


@dataclass(frozen=True, slots=True)
class _Wishes:
    pictures: int
    video_frames: int


def _wishes(messages: Sequence[dict[str, Any]], sight: Sight) -> _Wishes:
    parts = [part for message in messages if not isinstance(message["content"], str) for part in message["content"]]
    images = [part for part in parts if part["type"] == "image"]
    room = max(1, sight.most_tokens // (2 * Grid(1, 1).tokens) - len(images))
    videos = sum(part["type"] == "video" for part in parts)
    frames = max(1, room // videos) if videos else 0
    shown = sum(min(frames, len(part["frames"])) for part in parts if part["type"] == "video")
    return _Wishes(len(images) + shown, frames)


def _auto_tokens(wishes: _Wishes, sight: Sight) -> int:
    """Tokens that one picture of detail `auto` may cost: what fits twice beside an answer, and is read in good time."""
    share = sight.most_tokens // 2 // max(1, wishes.pictures)
    if not sight.prefill_tps:
        return min(share, Grid(1, 1).tokens)
    read_s = AUTO_READ_S
    if sight.deadline_s is not None:
        read_s = min(read_s, (sight.deadline_s - time.monotonic()) * DEADLINE_SHARE)
    return min(share, int(read_s * sight.prefill_tps / SEEING_COST) // max(1, wishes.pictures))


def _shown(part: dict[str, Any], wishes: _Wishes, sight: Sight) -> list[tuple[int | None, str]]:
    """(frame or None, the text before it) for one part; of a video as many frames as there is room for, evenly."""
    if part["type"] == "text":
        return [(None, part["text"])]
    if part["type"] == "image":
        return [(part["frame"], "")]
    frames, times = part["frames"], part["timestamps_ms"]
    if times is not None and len(times) != len(frames):
        raise InvalidRequest("messages: a video's timestamps_ms must be as many as its frames")
    count = min(len(frames), wishes.video_frames)
    chosen = [round(at * (len(frames) - 1) / max(1, count - 1)) for at in range(count)]
    return [(frames[at], f"At {times[at] / 1000:.1f} s:\n" if times is not None else "") for at in chosen]


def _picture(
    frames: Sequence[bytes], frame: int, detail: str, budget: int, sight: Sight, number: int, *, many: bool
) -> Picture:
    if not 0 <= frame < len(frames):
        raise InvalidRequest(f"messages.{number}.content: frame {frame} was not sent ({len(frames)} were)")
    most = min(MOST_CROPS if not many else FEW_CROPS, sight.most_crops)
    smallest = 336 if detail == "low" or most == 1 else 336 * most
    image = decode_image(frames[frame], sight.limits, deadline_s=sight.deadline_s, at_least=(smallest, smallest))
    crops = {"low": 1, "high": most}.get(detail) or _auto_crops(image, most, budget)
    whole = scaled(image, crops)
    digest = hashlib.blake2b(
        whole.tobytes(), digest_size=7, person=b"%dx%d" % (whole.width // 336, whole.height // 336)
    )
    token = -1 - int.from_bytes(digest.digest(), "big")
    return Picture(token, whole, fit(image.width, image.height, crops).grid)


def _auto_crops(image: Image.Image, most: int, budget: int) -> int:
    choices = [crops for crops in (most, FEW_CROPS) if crops <= most]
    fitting = [crops for crops in choices if fit(image.width, image.height, crops).grid.tokens <= budget]
    return fitting[0] if fitting else 1
