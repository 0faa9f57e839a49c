"""Pictures in a conversation: what they cost is known from their size, and two prompts differ where pictures do."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edged.engine.images.crops import SIDE, Grid, fit, pixel_values, scaled
from edged.engine.images.pictures import Sight, pictured_turns, pictures_in
from edged.errors import InvalidRequest

SHARP = Sight(most_crops=16, prefill_tps=1e6, most_tokens=100_000)


def png(size: tuple[int, int] = (40, 30), colour: str = "red") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", size, colour).save(made, "PNG")
    return made.getvalue()


def asked(*frames: int, detail: str = "auto", text: str = "what is this?") -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "image", "frame": frame, "detail": detail} for frame in frames]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


# sizes of Phi-3.5-vision's own processor: (width, height), num_crops -> tokens
@pytest.mark.parametrize(
    ("size", "most", "tokens"),
    [
        ((336, 336), 1, 313),
        ((1000, 20), 1, 313),
        ((20, 1000), 1, 313),
        ((336, 336), 4, 757),
        ((1000, 1000), 16, 2509),
        ((1344, 336), 16, 2485),
        ((336, 1344), 16, 2557),
        ((640, 480), 16, 1921),
    ],
)
def test_what_a_picture_costs(size: tuple[int, int], most: int, tokens: int) -> None:
    assert fit(*size, most).grid.tokens == tokens


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([1, 4, 9, 16]))
def test_no_picture_takes_more_squares_than_allowed(width: int, height: int, most: int) -> None:
    found = fit(width, height, most)
    assert 1 <= found.grid.crops <= most
    assert 1 <= found.width <= found.grid.columns * SIDE
    assert 1 <= found.height <= found.grid.rows * SIDE


def test_pixels_are_cut_as_announced() -> None:
    picture = Image.new("RGB", (200, 100), "blue")
    whole = scaled(picture, 4)
    pixels = pixel_values(whole)
    assert pixels.shape == (1 + fit(200, 100, 4).grid.crops, 3, SIDE, SIDE)
    top = scaled(picture, 1)
    assert top.getpixel((SIDE // 2, 2)) == (255, 255, 255)  # filled up with white above and below
    assert top.getpixel((SIDE // 2, SIDE // 2)) == (0, 0, 255)
    assert np.array_equal(pixel_values(top)[0], pixel_values(top)[1])  # one square: both views are the same


def test_pictures_stand_in_the_prompt_as_their_own_number() -> None:
    turns = pictured_turns(asked(0, 1, 0), [png(), png(colour="blue")], SHARP)
    first, second, again = pictures_in(turns)
    assert first.token < 0 > second.token
    assert first.token == again.token != second.token
    assert turns[0]["content"][-1] == "what is this?"


def test_detail_decides_the_squares_and_the_model_has_the_last_word() -> None:
    def grid(detail: str, sight: Sight = SHARP) -> Grid:
        return pictures_in(pictured_turns(asked(0, detail=detail), [png((800, 800))], sight))[0].grid

    assert grid("low") == Grid(1, 1)
    assert grid("high") == Grid(4, 4)
    assert grid("auto") == Grid(4, 4)
    assert grid("auto", Sight(16, prefill_tps=0.0, most_tokens=4096)) == Grid(1, 1)  # nothing measured yet
    assert grid("auto", Sight(16, prefill_tps=20.0, most_tokens=4096)) == Grid(1, 1)  # a slow box
    assert grid("auto", Sight(16, prefill_tps=300.0, most_tokens=4096)) == Grid(2, 2)
    hurry = Sight(16, prefill_tps=1000.0, most_tokens=100_000, deadline_s=time.monotonic() + 1)
    assert grid("auto", hurry) == Grid(1, 1)
    assert grid("high", Sight(1, prefill_tps=1e6, most_tokens=4096)) == Grid(1, 1)


def test_several_pictures_are_looked_at_less_closely() -> None:
    found = pictures_in(pictured_turns(asked(0, 0, detail="high"), [png((500, 500))], SHARP))
    assert [picture.grid for picture in found] == [Grid(2, 2), Grid(2, 2)]


def test_a_video_is_sampled_to_what_fits() -> None:
    video = {
        "type": "video",
        "frames": list(range(10)),
        "timestamps_ms": [100 * n for n in range(10)],
        "detail": "auto",
    }
    frames = [png(colour=f"rgb({20 * n},0,0)") for n in range(10)]
    messages = [{"role": "user", "content": [video, {"type": "text", "text": "what happens?"}]}]
    (turn,) = pictured_turns(messages, frames, Sight(16, prefill_tps=1e6, most_tokens=4 * 2 * 313))
    assert len(pictures_in([turn])) == 4
    assert [text for text in turn["content"] if isinstance(text, str)] == [
        "At 0.0 s:\n", "At 0.3 s:\n", "At 0.6 s:\n", "At 0.9 s:\n", "what happens?"
    ]  # fmt: skip
    with pytest.raises(InvalidRequest, match="timestamps_ms"):
        pictured_turns([{"role": "user", "content": [video | {"timestamps_ms": [1]}]}], frames, SHARP)


def test_a_frame_that_is_no_picture_or_is_missing() -> None:
    with pytest.raises(InvalidRequest, match="not PNG, JPEG or WebP"):
        pictured_turns(asked(0), [b"hello"], SHARP)
    with pytest.raises(InvalidRequest, match="frame 1 was not sent"):
        pictured_turns(asked(1), [png()], SHARP)
