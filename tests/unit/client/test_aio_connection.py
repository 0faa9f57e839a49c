"""The asyncio connection against a bare ROUTER: no reply is overlooked, whenever it comes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import zmq

from edged.client.aio_connection import AsyncConnection
from edged.client.requests import request
from edged.protocol.codec import pack


async def test_a_reply_that_comes_while_a_ping_is_sent_is_not_waited_for(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/s"
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.bind(endpoint)
        connection = AsyncConnection(endpoint, timeout_s=300)
        pending = await connection.ask(request("ping", {}))
        peer = router.recv_multipart()[0]
        router.send_multipart([peer, pack({"v": 1, "id": pending.id, "ev": "pong"})])
        assert connection._socket is not None
        assert connection._socket.poll(20_000)  # it is there, and the loop has not turned since the request
        pending.sent_s -= 200  # so long that a ping is due
        async with asyncio.timeout(20):
            assert (await connection.receive(pending))["ev"] == "pong"
        await connection.close()
