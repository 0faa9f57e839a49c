"""The outbox: order kept, deltas merged, bytes bounded, and the last word on a request never lost."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.protocol.codec import pack
from edged.serving.outbox import Outbox

pytestmark = pytest.mark.aarch64


def _delta(id_: int, text: str, **more: Any) -> dict[str, Any]:
    return {"v": 1, "id": id_, "ev": "delta", "text": text, **more}


def _add(outbox: Outbox, message: dict[str, Any], now_s: float = 0.0) -> bool:
    return outbox.add((b"",), message, len(pack(message)), now_s)


def _read(outbox: Outbox, most: int) -> list[dict[str, Any]]:
    """What a client gets that takes `most` messages."""
    got: list[dict[str, Any]] = []

    def send(envelope: tuple[bytes, ...], data: bytes, frames: tuple[bytes, ...]) -> bool:
        assert envelope == (b"",)
        if len(got) == most:
            return False
        got.append(msgpack.unpackb(data))
        return True

    outbox.flush(send, 1.0)
    return got


moves = st.lists(
    st.tuples(st.just("add"), st.integers(1, 2), st.text(max_size=4), st.booleans())
    | st.tuples(st.just("read"), st.integers(0, 3), st.just(""), st.just(False)),
    max_size=40,
)


@given(moves)
def test_every_word_comes_in_order_however_the_client_reads(moves: list[tuple[str, int, str, bool]]) -> None:
    outbox = Outbox(10**6)
    wanted, got = {1: "", 2: ""}, {1: "", 2: ""}
    probs = 0

    def take(most: int) -> None:
        for message in _read(outbox, most):
            got[message["id"]] += message["text"]

    for what, number, text, with_logprobs in moves:
        if what == "add":
            probs += with_logprobs
            _add(outbox, _delta(number, text, **({"logprobs": [1]} if with_logprobs else {})))
            wanted[number] += text
        else:
            take(number)
    take(10**6)
    assert got == wanted
    assert not outbox
    assert outbox.cost_bytes == 0
    assert outbox.blocked_since_s is None


def test_deltas_of_one_request_become_one_message() -> None:
    outbox = Outbox(10**6)
    for text in "abc":
        _add(outbox, _delta(1, text))
    assert _read(outbox, 9) == [_delta(1, "abc")]


def test_a_message_that_was_tried_is_not_changed_any_more() -> None:
    outbox = Outbox(10**6)
    _add(outbox, _delta(1, "a"))
    assert _read(outbox, 0) == []
    _add(outbox, _delta(1, "b"))
    _add(outbox, _delta(1, "c"))
    assert _read(outbox, 9) == [_delta(1, "a"), _delta(1, "bc")]


def test_what_is_left_unread_is_counted_in_bytes() -> None:
    outbox = Outbox(4000)
    assert _add(outbox, _delta(1, "é" * 500))
    assert _add(outbox, _delta(1, "é" * 500))
    assert 2000 < outbox.cost_bytes < 2400
    assert not _add(outbox, {"v": 1, "id": 2, "ev": "result", "tokens": [1000] * 1000})


def test_reading_something_gives_the_client_its_time_anew() -> None:
    outbox = Outbox(10**6)
    _add(outbox, _delta(1, "a"), now_s=5.0)
    _add(outbox, {"ev": "done", "id": 1}, now_s=6.0)
    assert outbox.blocked_since_s == 5.0
    outbox.flush(lambda envelope, data, frames: False, 9.0)
    assert outbox.blocked_since_s == 5.0
    taken = iter([True, False])
    outbox.flush(lambda envelope, data, frames: next(taken), 9.0)
    assert outbox.blocked_since_s == 9.0


def test_a_slow_client_loses_parts_but_no_last_word() -> None:
    outbox = Outbox(100)
    for message in (_delta(1, "x" * 500), {"ev": "done", "id": 1}, _delta(2, "y"), {"ev": "error", "id": 3}):
        _add(outbox, message)
    _read(outbox, 0)  # the first was tried and packed already
    outbox.keep_last_words()
    assert _read(outbox, 9) == [{"ev": "done", "id": 1}, {"ev": "error", "id": 3}]
    assert outbox.cost_bytes == 0


def test_attachments_count_and_leave_with_their_message() -> None:
    outbox = Outbox(limit_bytes=1000)
    message = {"v": 1, "id": 1, "ev": "result"}
    assert outbox.add((), message, 20, 0.0, (b"x" * 400,))
    assert not outbox.add((), message, 20, 0.0, (b"y" * 600,))
    outbox.keep_last_words()
    left: list[tuple[bytes, ...]] = []
    outbox.flush(lambda envelope, data, frames: not left.append(frames), 1.0)
    assert left == [(b"x" * 400,), (b"y" * 600,)]
    assert outbox.cost_bytes == 0
