"""Large replies that a client leaves unread, on real sockets: counted until they have left, by client and in all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zmq

from edged.protocol.limits import WireLimits
from edged.serving.door import Client
from edged.serving.doors import Doors
from edged.serving.unread import Unread

MB = 2**20
PLUGS = 4  # small messages that fill what the client's own libzmq takes unread, so that the next ones stay with us
LIMITS = WireLimits(max_unread_bytes=20 * MB, max_pending_bytes=36 * MB, slow_consumer_s=10)


class Box:
    """A ROUTER that sends replies of 8 MiB to two clients, a clock, and the book."""

    def __init__(self, endpoint: str) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.router.bind(endpoint)
        self.now_s = 100.0
        self.unread = Unread(LIMITS, lambda: self.now_s)
        self.clients: dict[str, zmq.Socket[bytes]] = {}
        for name in ("a", "b"):
            client = self.clients[name] = self.context.socket(zmq.DEALER)
            client.setsockopt(zmq.RCVHWM, 1)
            client.setsockopt(zmq.ROUTING_ID, name.encode())
            client.connect(endpoint)
            client.send(b"here")
            self.router.recv_multipart()
            for _ in range(PLUGS):
                self.router.send_multipart([name.encode(), b"plug"])

    def send(self, name: str, *frames: bytes) -> None:
        sent = self.unread.book(name, frames)
        self.router.send_multipart([name.encode(), b"header", *sent], zmq.NOBLOCK)

    def read(self, name: str) -> list[bytes]:
        """The next reply."""
        while True:
            assert self.clients[name].poll(20_000)
            frames = self.clients[name].recv_multipart()
            if frames != [b"plug"]:
                return frames

    def close(self) -> None:
        for client in self.clients.values():
            client.close(0)
        self.router.close(0)
        self.context.term()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(f"ipc://{tmp_path}/s")
    yield made
    made.close()


def until(true: Callable[[], Any]) -> None:
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_what_one_client_leaves_unread_is_bounded_and_room_comes_back_when_it_reads(box: Box) -> None:
    large = bytes(range(256)) * (8 * MB // 256)
    sent = 0
    while box.unread.has_room("a", 8 * MB):
        box.send("a", large)
        sent += 1
        assert sent < 20
    assert (sent, box.unread.total_bytes) == (2, 16 * MB)
    assert box.unread.has_room("a", 1000)
    assert box.unread.has_room("b", 8 * MB)
    for _ in range(sent):
        assert box.read("a") == [b"header", large]
    until(lambda: box.unread.total_bytes == 0)
    assert box.unread.has_room("a", 8 * MB)


def test_one_reply_may_always_lie_there_alone_however_large(box: Box) -> None:
    assert box.unread.has_room("a", 64 * MB)
    box.send("a", bytes(30 * MB))
    assert box.unread.has_room("b", 6 * MB)
    assert not box.unread.has_room("b", 7 * MB)


def test_whoever_leaves_them_longest_is_named_when_the_room_of_all_runs_short(box: Box) -> None:
    box.send("a", bytes(8 * MB))
    box.now_s += 5
    box.send("b", bytes(8 * MB))
    box.now_s += 60
    assert box.unread.stale() is None  # there is room
    box.unread.limits = replace(LIMITS, max_pending_bytes=31 * MB)
    assert box.unread.stale() == "a"
    box.read("a")
    until(lambda: box.unread.stale() != "a")
    box.now_s = 106.0
    box.unread.limits = replace(LIMITS, max_pending_bytes=MB)
    assert box.unread.stale() is None  # not for long yet


def test_small_attachments_are_sent_as_they_are(box: Box) -> None:
    frames = (b"x" * 1000, b"y" * 1000)
    assert box.unread.book("a", frames) is frames
    assert box.unread.total_bytes == 0


async def test_at_the_doors_it_is_cut_and_its_room_is_free_for_another(tmp_path: Path) -> None:
    context: zmq.Context[Any] = zmq.Context()
    came: list[Client] = []
    gone: list[Client] = []
    limits = replace(LIMITS, max_pending_bytes=10 * MB, slow_consumer_s=0.05)
    doors = Doors(
        context,
        limits,
        on_request=lambda client, envelope, frames: came.append(client),
        on_gone=gone.append,
        on_slow=lambda client, envelope: None,
    )
    doors.open(f"ipc://{tmp_path}/s")
    peers = []
    async with asyncio.timeout(20):
        for _ in range(2):
            peers.append(context.socket(zmq.DEALER))
            peers[-1].setsockopt(zmq.RCVHWM, 1)
            peers[-1].connect(f"ipc://{tmp_path}/s")
            peers[-1].send(b"here")
            while len(came) < len(peers):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        greedy, other = came
        for _ in range(PLUGS):
            doors.send(greedy, (), {"ev": "plug"})
        doors.send(greedy, (), {"ev": "result"}, (bytes(8 * MB),))
        assert doors.unread_bytes == 8 * MB
        while not doors.has_room(other, 8 * MB):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        while not gone:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert gone == [greedy]
    doors.send(other, (), {"ev": "result"}, (bytes(8 * MB),))
    for peer in peers:
        peer.close(0)
    doors.close()
    context.term()
