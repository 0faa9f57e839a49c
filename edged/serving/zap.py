"""Who may come in over TCP: answers libzmq's question for each handshake (ZAP, ZeroMQ RFC 27) from the keyring.

Owns the ZAP socket of its context. Must be there before a socket with the domain is bound.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import zmq
from zmq.utils import z85

from edged.serving.door import DOMAIN
from edged.serving.keyring import Keyring
from edged.serving.pump import Pump

log = logging.getLogger(__name__)

LOOK_S = 1.0  # how soon a revoked key is noticed


class Zap:
    """`on_revoked(names)` when keys were taken away whose clients may be connected."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], keyring: Keyring, on_revoked: Callable[[set[str]], None]
    ) -> None:
        self._keyring, self._on_revoked = keyring, on_revoked
        self._socket = context.socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind("inproc://zeromq.zap.01")
        self._pump = Pump(self._socket, self._answer)
        self._look()

    def close(self) -> None:
        self._timer.cancel()
        self._pump.close()
        self._socket.close()

    def _answer(self, frames: Sequence[zmq.Frame]) -> None:
        parts = [bytes(frame.buffer) for frame in frames]
        version, request_id = (*parts[:2], b"", b"")[:2]
        name = None
        if len(parts) == 7 and parts[2] == DOMAIN and parts[5] == b"CURVE":
            self._refresh()
            name = self._keyring.name_of(z85.encode(parts[6]).decode())
        address = parts[3].decode("utf-8", "replace") if len(parts) > 3 else "?"
        if name is None:
            log.warning("unknown key refused address=%s", address)
            verdict = (b"400", b"unknown key", b"")
        else:
            log.info("key accepted key=%s address=%s", name, address)
            verdict = (b"200", b"OK", name.encode())
        self._socket.send_multipart([version, request_id, *verdict, b""], zmq.NOBLOCK)
        self._pump.kick()

    def _look(self) -> None:
        self._refresh()
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _refresh(self) -> None:
        if revoked := self._keyring.refresh():
            self._on_revoked(revoked)
