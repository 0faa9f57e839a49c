"""The door on real sockets: who a client is, when it is gone, and what happens when it does not read."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from edged.protocol.limits import WireLimits
from edged.serving import descriptors
from edged.serving.door import UNTOLD, Client, Door
from edged.serving.outbox import Envelope

FLOOD = """
import resource, socket, sys, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
held, end_s = [], time.monotonic() + 60
while len(held) < int(sys.argv[2]) and time.monotonic() < end_s:
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        connection.connect(sys.argv[1])
    except OSError:  # as many wait as may
        connection.close()
        time.sleep(0.01)
    else:
        held.append(connection)
time.sleep(60)
"""


class Hall:
    """A door with everything it reports written down."""

    def __init__(self, directory: str, **limits: Any) -> None:
        self.endpoint = f"ipc://{directory}/d.sock"
        self.path = Path(directory) / "d.sock"
        self.context: zmq.Context[Any] = zmq.Context()
        self.requests: list[tuple[Client, Envelope, list[bytes]]] = []
        self.gone: list[Client] = []
        self.slow: list[tuple[Client, Envelope]] = []
        self.door = Door(
            self.context,
            WireLimits(**limits),
            on_request=self._request,
            on_gone=self.gone.append,
            on_slow=lambda client, envelope: self.slow.append((client, envelope)),
        )
        self.door.open(self.endpoint)
        self.peers: list[zmq.Socket[bytes]] = []

    def _request(self, client: Client, envelope: Envelope, frames: Sequence[zmq.Frame]) -> None:
        self.requests.append((client, envelope, [bytes(frame.buffer) for frame in frames]))

    def peer(self, kind: int = zmq.DEALER, **options: Any) -> zmq.Socket[bytes]:
        made = self.context.socket(kind)
        made.linger = 0
        for name, value in options.items():
            made.setsockopt(getattr(zmq, name), value)
        made.connect(self.endpoint)
        self.peers.append(made)
        return made

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(30):
            while not true():  # noqa: ASYNC110  what is waited for is the outside world
                await asyncio.sleep(0.005)

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.door.close()
        self.context.term()


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    with tempfile.TemporaryDirectory(prefix="edged-d-", dir="/tmp") as directory:
        made = Hall(directory, max_clients=4, outbox_bytes=5000, slow_consumer_s=1)
        yield made
        made.close()
        assert not made.path.exists()


async def test_a_client_is_known_by_its_connection(hall: Hall) -> None:
    dealer, req = hall.peer(), hall.peer(zmq.REQ)
    dealer.send_multipart([b"header", b"attachment"])
    req.send(b"question")
    await hall.until(lambda: len(hall.requests) == 2)
    by_type = {client.single_reply: (client, envelope, frames) for client, envelope, frames in hall.requests}
    assert by_type[False][1:] == ((), [b"header", b"attachment"])
    assert by_type[True][1:] == ((b"",), [b"question"])
    assert {client.uid for client, _, _ in hall.requests} == {os.getuid()}
    assert len({client.fd for client, _, _ in hall.requests}) == 2
    assert hall.path.stat().st_mode & 0o777 == 0o660


async def test_a_correlated_req_has_its_number_mirrored(hall: Hall) -> None:
    req = hall.peer(zmq.REQ, REQ_CORRELATE=1, REQ_RELAXED=1)
    req.send(b"q")
    await hall.until(lambda: hall.requests)
    client, envelope, frames = hall.requests[0]
    assert (len(envelope), envelope[1], frames) == (2, b"", [b"q"])
    hall.door.send(client, envelope, {"v": 1, "id": 1, "ev": "result"})
    await hall.until(lambda: req.poll(0))
    assert msgpack.unpackb(req.recv())["ev"] == "result"


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
async def test_a_client_that_leaves_is_reported_once(hall: Hall, kind: int) -> None:
    peer = hall.peer(kind)
    peer.send(b"x")
    await hall.until(lambda: hall.requests)
    peer.close()
    await hall.until(lambda: hall.gone)
    hall.door.send(hall.requests[0][0], (), {"ev": "late"})  # nobody is there, nobody minds
    await asyncio.sleep(0.05)
    assert hall.gone == [hall.requests[0][0]]
    assert hall.door.connections == 0


async def test_a_failed_handshake_strikes_nobody_off(hall: Hall) -> None:
    peer = hall.peer()
    peer.send(b"x")
    await hall.until(lambda: hall.requests)
    for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"", b"\xff" * 64, b"\xff" + b"\0" * 8 + b"\x7f\x03"):
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as raw:
                raw.connect(str(hall.path))
                raw.send(rubbish)
    peer.send(b"y")
    await hall.until(lambda: len(hall.requests) == 2)
    await hall.until(lambda: hall.door.connections == 1)
    assert hall.gone == []
    assert hall.requests[0][0] is hall.requests[1][0]


async def test_an_impostor_gets_nothing_of_anothers(hall: Hall) -> None:
    honest = hall.peer(ROUTING_ID=b"same")
    honest.send(b"x")
    await hall.until(lambda: hall.requests)
    impostor = hall.peer(ROUTING_ID=b"same")
    impostor.send(b"y")
    hall.door.send(hall.requests[0][0], (), {"ev": "delta", "id": 1, "text": "secret"})
    await hall.until(lambda: honest.poll(0))
    assert not impostor.poll(100)


async def test_a_client_that_does_not_read_is_reported_once_and_served_when_it_has_read(hall: Hall) -> None:
    slow, other = hall.peer(RCVHWM=1, RCVBUF=1024), hall.peer()
    for peer in (slow, other):
        peer.send(b"x")
    await hall.until(lambda: len(hall.requests) == 2)
    slow.send(b"me")
    await hall.until(lambda: len(hall.requests) == 3)
    victim = hall.requests[2][0]
    friend = next(client for client, _, _ in hall.requests if client is not victim)
    async with asyncio.timeout(60):
        while not hall.slow:  # fill what the system holds, until nothing moves for slow_consumer_s
            if not victim.outbox:
                hall.door.send(victim, (), {"ev": "delta", "id": 1, "text": "x" * 500})
            await asyncio.sleep(0)
    hall.door.send(victim, (), {"ev": "error", "id": 1, "code": "slow_consumer"})
    for _ in range(100):
        hall.door.send(victim, (), {"ev": "delta", "id": 1, "text": "y" * 500})
    assert len(hall.slow) == 1
    assert hall.door.blocked_clients == 1
    hall.door.send(friend, (), {"ev": "result", "id": 1})
    await hall.until(lambda: other.poll(0))
    slow.send(b"not taken")
    await hall.until(lambda: hall.door.requests_not_taken == 1)
    seen = []

    def read() -> bool:
        while slow.poll(0):
            seen.append(msgpack.unpackb(slow.recv())["ev"])
        return hall.door.blocked_clients == 0

    await hall.until(read)
    await hall.until(lambda: read() and "error" in seen)
    slow.send(b"taken again")
    await hall.until(lambda: hall.requests[-1][2] == [b"taken again"])
    assert not hall.gone


async def test_only_so_many_clients_are_welcome(hall: Hall) -> None:
    peers = [hall.peer() for _ in range(6)]
    for peer in peers:
        peer.send(b"x")
    await hall.until(lambda: len(hall.requests) == 6)
    assert sorted(client.welcome for client, _, _ in hall.requests) == [False] * 2 + [True] * 4
    left = next(at for at, peer in enumerate(peers) if hall.requests[0][0].welcome)
    peers[left].close()
    await hall.until(lambda: hall.gone)
    for at, peer in enumerate(peers):
        if at != left:
            peer.send(b"again")
    await hall.until(lambda: len(hall.requests) == 11)
    welcome = {client.fd for client, _, _ in hall.requests[6:] if client.welcome}
    assert len(welcome) == 4


def test_libzmq_takes_no_more_connections_than_are_told_while_nobody_reads(tmp_path: Path) -> None:
    """The fact that the ceiling on connections rests on: libzmq aborts the process when descriptors run out."""

    def begin(path: Path) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", FLOOD, str(path), "2500"])

    async def run() -> None:
        hall = Hall(str(tmp_path), max_clients=100_000)
        before = descriptors.open_count()
        flood = begin(hall.path)
        end_s = time.monotonic() + 30
        while descriptors.open_count() - before < UNTOLD - 10:
            assert time.monotonic() < end_s
            time.sleep(0.01)  # noqa: ASYNC251  the loop stands still
        time.sleep(0.5)  # noqa: ASYNC251
        assert descriptors.open_count() - before <= UNTOLD + 10
        await hall.until(lambda: hall.door.connections > UNTOLD + 200)  # it goes on when they are read
        flood.kill()
        flood.wait()
        await hall.until(lambda: hall.door.connections == 0)
        hall.close()

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        asyncio.run(run())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
