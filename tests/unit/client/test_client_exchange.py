"""Which reply belongs to which request, and when a client gives up waiting: no sockets, the clock is an argument."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from edged.client.errors import BadReply, ConnectionLost, NoReply, UsageError
from edged.client.exchange import Exchange, Pending
from edged.client.requests import request


def reply(number: int | None, event: str, **fields: Any) -> list[bytes]:
    return [msgpack.packb({"v": 1, "id": number, "ev": event, **fields})]


def opened(exchange: Exchange, now_s: float = 0.0, patient: bool = False, **fields: Any) -> Pending:
    return exchange.open(request("ping", fields), (), now_s, patient=patient)[0]


def test_replies_go_to_their_own_request_in_order() -> None:
    exchange = Exchange(10)
    first, second = opened(exchange), opened(exchange)
    for number, text in ((second.id, "b1"), (first.id, "a1"), (second.id, "b2"), (first.id, "a2")):
        exchange.deliver(reply(number, "delta", text=text), 1.0)
    assert [exchange.take(first)["text"] for _ in range(2)] == ["a1", "a2"]  # type: ignore[index]
    assert [exchange.take(second)["text"] for _ in range(2)] == ["b1", "b2"]  # type: ignore[index]
    assert exchange.take(first) is None


def test_replies_nobody_waits_for_are_dropped() -> None:
    exchange = Exchange(10)
    pending = opened(exchange)
    exchange.close(pending)
    exchange.deliver(reply(pending.id, "delta", text="late"), 1.0)
    assert exchange.take(pending) is None


def test_the_frames_carry_a_fresh_id_and_the_attachments() -> None:
    exchange = Exchange(10)
    pending, frames = exchange.open(request("chat", {"messages": ()}), (b"png",), 0.0, patient=True)
    assert msgpack.unpackb(frames[0]) == {"v": 1, "op": "chat", "messages": [], "id": pending.id}
    assert frames[1:] == [b"png"]
    assert msgpack.unpackb(exchange.frames(request("ping", {}))[0])["id"] != pending.id


def test_an_error_without_id_belongs_to_the_largest_request_that_heard_nothing() -> None:
    exchange = Exchange(10)
    small, large, heard = opened(exchange), opened(exchange, text="x" * 1000), opened(exchange, text="x" * 2000)
    exchange.deliver(reply(heard.id, "accepted"), 0.1)
    exchange.deliver(reply(None, "error", code="invalid_request"), 0.2)
    assert exchange.take(small) is None
    assert exchange.take(large)["code"] == "invalid_request"  # type: ignore[index]
    assert exchange.take(heard)["ev"] == "accepted"  # type: ignore[index]


@pytest.mark.parametrize(
    "frames", [[b"\xc1"], [b""], [b"\x01"], [msgpack.packb([1])], [msgpack.packb({"v": 1})], [b"\x81\xa2id\x90"]]
)
def test_what_is_no_reply_is_named_as_such(frames: list[bytes]) -> None:
    exchange = Exchange(10)
    opened(exchange)
    with pytest.raises(BadReply, match="edged/1"):
        exchange.deliver(frames, 0.0)


@pytest.mark.parametrize("value", [object(), 2**70, "lone \ud800 surrogate"])
def test_what_msgpack_cannot_carry_is_refused_before_it_is_sent(value: object) -> None:
    exchange = Exchange(10)
    with pytest.raises(UsageError, match="cannot be put on the wire"):
        exchange.open(request("tokenize", {"text": value}), (), 0.0, patient=False)
    exchange.lose_all()  # nothing is left in flight


def test_a_lost_connection_ends_what_was_in_flight_after_its_last_words() -> None:
    exchange = Exchange(10)
    pending = opened(exchange)
    exchange.deliver(reply(pending.id, "delta", text="last"), 0.5)
    exchange.lose_all()
    assert exchange.take(pending)["text"] == "last"  # type: ignore[index]
    with pytest.raises(ConnectionLost, match="edged status"):
        exchange.take(pending)
    assert exchange.take(opened(exchange)) is None  # a later request is not lost


class TestPatience:
    def test_a_reply_must_come_in_time(self) -> None:
        exchange = Exchange(10)
        pending = opened(exchange, now_s=100.0)
        exchange.deliver(reply(999, "result"), 109.0)  # the daemon lives, but this answer does not come
        with pytest.raises(NoReply, match=r"no reply within 10 s.*edged status"):
            exchange.wait_s(pending, 110.0)

    def test_a_generation_waits_as_long_as_the_daemon_shows_life(self) -> None:
        exchange = Exchange(10)
        pending = opened(exchange, now_s=100.0, patient=True)
        exchange.deliver(reply(999, "result"), 109.0)
        assert 0 < exchange.wait_s(pending, 115.0) <= 4.0
        with pytest.raises(NoReply):
            exchange.wait_s(pending, 119.0)

    def test_half_the_patience_brings_one_ping(self) -> None:
        exchange = Exchange(10)
        pending = opened(exchange, now_s=100.0, patient=True)
        assert not exchange.wants_ping(pending, 104.9)
        assert exchange.wait_s(pending, 104.0) == pytest.approx(1.0)  # wakes up for the ping
        assert exchange.wants_ping(pending, 105.0)
        assert not exchange.wants_ping(pending, 105.1)
        assert exchange.wait_s(pending, 105.1) == pytest.approx(4.9)

    def test_a_wait_is_never_zero_before_the_end(self) -> None:
        exchange = Exchange(10)
        pending = opened(exchange, now_s=0.0, patient=True)
        now_s = 0.0
        while now_s < 9.99:
            exchange.wants_ping(pending, now_s)
            wait_s = exchange.wait_s(pending, now_s)
            assert wait_s > 0
            now_s += wait_s
        assert now_s == pytest.approx(10.0)


def test_frames_behind_a_reply_are_its_attachments() -> None:
    exchange = Exchange(10.0)
    pending, _ = exchange.open({"op": "embed"}, (), 0.0, patient=False)
    exchange.deliver([*reply(pending.id, "result", frame=0), b"raw"], 0.1)
    exchange.deliver([b"", *reply(pending.id, "result", frame=0), b"raw", b"more"], 0.1)
    assert [exchange.take(pending)["attachments"] for _ in range(2)] == [(b"raw",), (b"raw", b"more")]
