"""The asyncio connection: one DEALER socket and its monitor, read from the event loop itself; no tasks of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import zmq

from edged.client import requests
from edged.client.connection import DOUBT_S, LINGER_MS, Key, connect, set_options
from edged.client.errors import BadReply, DaemonNotFound, NoReply, UsageError
from edged.client.exchange import Exchange, Pending
from edged.client.locate import find_daemon, find_key, trouble_at
from edged.protocol.sockets import has_message

LAST_WORDS_S = 0.02  # what the daemon said before it went still counts: it is read first
FULL_WAIT_S = 0.01  # between two tries to send when the socket takes no more
BURST = 64  # messages read before other work of the loop gets its turn


class AsyncConnection:
    """Owns the socket, its monitor and the exchange. For one event loop, the one that runs at the first request."""

    def __init__(self, endpoint: str | None, timeout_s: float, key: Key = None) -> None:
        if not 0 < timeout_s < float("inf"):
            raise UsageError("timeout_s: a number of seconds above 0")
        self._key = find_key(key)
        self.endpoint = find_daemon(endpoint, self._key)
        self.exchange = Exchange(timeout_s)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._broken: BadReply | None = None
        self._was_lost = False
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(
        self, request: Mapping[str, Any], attachments: Sequence[bytes] = (), *, patient: bool = False
    ) -> Pending:
        """Send a request; its replies come from `receive`. Raises DaemonNotFound when the daemon has gone since."""
        self._open()
        if self._was_lost and (why := trouble_at(self.endpoint)):
            raise DaemonNotFound(((self.endpoint, why),))
        pending, frames = self.exchange.open(request, attachments, time.monotonic(), patient=patient)
        try:
            while not self._try_send(frames):
                if time.monotonic() > pending.sent_s + self.exchange.timeout_s:
                    raise NoReply("the daemon takes no more requests of this client; it may hang: see `edged status`")
                await asyncio.sleep(FULL_WAIT_S)
        except BaseException:
            self.forget(pending)
            raise
        return pending

    async def receive(self, pending: Pending) -> dict[str, Any]:
        """The next reply of a request. Raises NoReply and ConnectionLost."""
        while True:
            if self._broken is not None:
                raise self._broken
            reply = self.exchange.take(pending)
            if reply is not None:
                return reply
            now_s = time.monotonic()
            if self.exchange.wants_ping(pending, now_s):
                self._send_and_forget("ping", {})
                continue  # sending reads, too: the reply may be here
            wait_s = self.exchange.wait_s(pending, now_s)
            await self._news(pending, min(wait_s, DOUBT_S if self._was_lost else wait_s) + 0.001)
            if self._was_lost and not (pending.replies or pending.lost) and (why := trouble_at(self.endpoint)):
                pending.lost = True
                raise DaemonNotFound(((self.endpoint, why),))

    async def call(self, op: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One request with one reply."""
        return await self.call_with(requests.request(op, fields))

    async def call_with(
        self, request: Mapping[str, Any], attachments: Sequence[bytes] = (), *, patient: bool = False
    ) -> dict[str, Any]:
        """One request with one reply; `patient` as in Pending."""
        pending = await self.ask(request, attachments, patient=patient)
        try:
            return await self.receive(pending)
        finally:
            self.forget(pending)

    def forget(self, pending: Pending) -> None:
        """No more replies of this request are wanted."""
        self.exchange.close(pending)

    def abandon(self, pending: Pending) -> None:
        """Nobody wants the rest: tell the daemon, which frees the memory. Never waits, never raises."""
        self.forget(pending)
        if not pending.lost:
            with contextlib.suppress(zmq.ZMQError):
                self._send_and_forget("cancel", {"target": pending.id})

    async def close(self) -> None:
        """Let go of the socket; requests still in flight are cancelled by the daemon, which sees us leave."""
        self._stop_reading()
        self.exchange.lose_all()
        if self._socket is not None and not self._socket.closed:
            self._socket.disable_monitor()
        self._context.destroy(linger=LINGER_MS)

    # ---- the socket

    def _open(self) -> None:
        """Make the socket on first use: it belongs to the loop that runs then."""
        if self._context.closed:
            raise UsageError("this client is closed")
        if self._socket is not None:
            return
        socket = self._socket = self._context.socket(zmq.DEALER)
        monitor = self._monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        set_options(socket, self.endpoint, self._key)
        connect(socket, self.endpoint)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(int(socket.getsockopt(zmq.FD)), self._read)
        self._loop.add_reader(int(monitor.getsockopt(zmq.FD)), self._watch)
        self._watch()  # only once a socket was found empty does its descriptor tell of messages

    def _stop_reading(self) -> None:
        for socket in (self._socket, self._monitor):
            if self._loop is not None and not self._loop.is_closed() and socket is not None and not socket.closed:
                self._loop.remove_reader(int(socket.getsockopt(zmq.FD)))

    async def _news(self, pending: Pending, wait_s: float) -> None:
        """Return at the next word on a request, its loss, or after `wait_s`."""
        assert self._loop is not None
        heard: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            if not heard.done():
                heard.set_result(None)

        pending.wake = wake
        timer = self._loop.call_later(wait_s, wake)
        try:
            await heard
        finally:
            timer.cancel()

    def _try_send(self, frames: list[bytes]) -> bool:
        """False when the socket takes no more now."""
        if self._socket is None or self._socket.closed:
            raise UsageError("this client is closed")
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            if has_message(self._socket):  # the descriptor is edge-triggered, and sending may have taken the edge
                self._read()
        return True

    def _send_and_forget(self, op: str, fields: Mapping[str, Any]) -> None:
        """What cannot be sent now need not be."""
        if self._socket is not None and not self._socket.closed:
            self._try_send(self.exchange.frames(requests.request(op, fields)))

    def _read(self) -> None:
        """Hand on what is there."""
        assert self._socket is not None
        assert self._loop is not None
        for _ in range(BURST):
            if self._socket.closed or self._broken is not None:  # in a burst or before, and nobody reads any more
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
                self.exchange.deliver(frames, time.monotonic())
            except zmq.Again:
                return
            except BadReply as error:
                self._broken = error
                self._stop_reading()
                self.exchange.lose_all()
                return
            self._was_lost = False
        self._loop.call_soon(self._read)

    def _watch(self) -> None:
        """The daemon has gone, or its connection."""
        assert self._monitor is not None
        assert self._loop is not None
        while not self._monitor.closed and has_message(self._monitor):
            self._monitor.recv_multipart()
            self._loop.call_later(LAST_WORDS_S, self._note_end)

    def _note_end(self) -> None:
        self._was_lost = True
        self.exchange.lose_all()
