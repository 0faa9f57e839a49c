"""Stop strings and UTF-8: whatever the token borders, the client sees the same text, and nothing of a stop string."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edged.engine.text import TextStream

pytestmark = pytest.mark.aarch64

few = st.text(alphabet="ab|é🌡", max_size=30)
stops = st.lists(st.text(alphabet="ab|é🌡", min_size=1, max_size=4), max_size=4)


def _shown(data: bytes, stop: list[str], cuts: list[int]) -> tuple[str, bool]:
    """What a client sees of `data` cut into tokens; checks on the way that nothing is taken back."""
    stream = TextStream(stop)
    shown = ""
    borders = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(borders):
        shown += stream.push(data[start:end])
        if stream.stopped:
            return shown, True
    shown += stream.finish()
    return shown, stream.stopped


def _reference(text: str, stop: list[str]) -> tuple[str, bool]:
    """Character by character: the first stop string that is whole ends it, the longer of two."""
    for end in range(1, len(text) + 1):
        met = [each for each in stop if text[:end].endswith(each)]
        if met:
            return text[: end - len(max(met, key=len))], True
    return text, False


@given(few, stops, st.lists(st.integers(0, 120), max_size=20))
@example("abab|", ["b|", "abab|x"], [1, 2, 3, 4])
@example("aab", ["ab"], [1, 2])
@example("ab|a", ["b|a", "|"], [2])
def test_token_borders_make_no_difference(text: str, stop: list[str], cuts: list[int]) -> None:
    assert _shown(text.encode(), stop, cuts) == _reference(text, stop)


@given(few, stops, st.lists(st.integers(0, 120), max_size=20))
def test_no_stop_string_is_ever_seen(text: str, stop: list[str], cuts: list[int]) -> None:
    shown, _ = _shown(text.encode(), stop, cuts)
    assert not any(each in shown for each in stop)


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=20))
def test_any_bytes_come_out_as_python_would_read_them(data: bytes, cuts: list[int]) -> None:
    assert _shown(data, [], cuts) == (data.decode("utf-8", "replace"), False)


@given(st.binary(max_size=40), stops, st.lists(st.integers(0, 40), max_size=20))
def test_broken_bytes_and_stops_together(data: bytes, stop: list[str], cuts: list[int]) -> None:
    assert _shown(data, stop, cuts) == _reference(data.decode("utf-8", "replace"), stop)


@pytest.mark.parametrize("text", ["🌡️ 21°", "温度は二十度", "👩‍👩‍👧", "é", "\U0010ffff", "नमस्ते"])
def test_a_character_is_shown_once_it_is_whole(text: str) -> None:
    stream = TextStream()
    shown = [stream.push(bytes([byte])) for byte in text.encode()]
    assert "".join(shown) == text
    assert "\ufffd" not in "".join(shown)
    assert stream.finish() == ""


def test_an_unfinished_character_is_not_lost_at_the_end() -> None:
    stream = TextStream(["never"])
    assert stream.push("ok 🌡".encode()[:-2] + b"") == "ok "
    assert stream.finish() == "\ufffd"
    held = TextStream(["end of it"])
    assert held.push(b"this is the end of") == "this is the "
    assert held.finish() == "end of"


def test_only_the_very_first_space_goes() -> None:
    stream = TextStream(strip_first_space=True)
    assert [stream.push(part) for part in (b"", b" a", b" b", b" ")] == ["", "a", " b", " "]
    assert TextStream(strip_first_space=True).push(b"a b") == "a b"
