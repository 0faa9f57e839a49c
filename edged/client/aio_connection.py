"""The asyncio connection: one DEALER socket, one task that reads it, one that hears when the daemon has gone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import zmq
import zmq.asyncio

from edged.client import requests
from edged.client.connection import DOUBT_S, LINGER_MS, Key, connect, set_options
from edged.client.errors import BadReply, DaemonNotFound, NoReply, UsageError
from edged.client.exchange import Exchange, Pending
from edged.client.locate import find_daemon, find_key, trouble_at

LAST_WORDS_S = 0.02  # what the daemon said before it went still counts: the reader goes first


class AsyncConnection:
    """Owns the socket, its monitor, the two tasks and the exchange. For one event loop."""

    def __init__(self, endpoint: str | None, timeout_s: float, key: Key = None) -> None:
        if not 0 < timeout_s < float("inf"):
            raise UsageError("timeout_s: a number of seconds above 0")
        self._key = find_key(key)
        self.endpoint = find_daemon(endpoint, self._key)
        self.exchange = Exchange(timeout_s)
        self._context = zmq.asyncio.Context()
        self._events: dict[int, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._broken: BadReply | None = None
        self._was_lost = False
        self._socket: zmq.asyncio.Socket | None = None

    async def ask(
        self, request: Mapping[str, Any], attachments: Sequence[bytes] = (), *, patient: bool = False
    ) -> Pending:
        """Send a request; its replies come from `receive`. Raises DaemonNotFound when the daemon has gone since."""
        socket = self._open()
        if self._was_lost and (why := trouble_at(self.endpoint)):
            raise DaemonNotFound(((self.endpoint, why),))
        woken = asyncio.Event()
        pending, frames = self.exchange.open(request, attachments, time.monotonic(), patient=patient, wake=woken.set)
        self._events[pending.id] = woken
        try:
            await asyncio.wait_for(socket.send_multipart(frames), self.exchange.timeout_s)
        except BaseException as error:
            self.forget(pending)
            if isinstance(error, TimeoutError):
                raise NoReply(
                    "the daemon takes no more requests of this client; it may hang: see `edged status`"
                ) from None
            raise
        return pending

    async def receive(self, pending: Pending) -> dict[str, Any]:
        """The next reply of a request. Raises NoReply and ConnectionLost."""
        woken = self._events[pending.id]
        while True:
            woken.clear()
            if self._broken is not None:
                raise self._broken
            reply = self.exchange.take(pending)
            if reply is not None:
                return reply
            now_s = time.monotonic()
            if self.exchange.wants_ping(pending, now_s):
                self._send_and_forget("ping", {})
            wait_s = self.exchange.wait_s(pending, now_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), min(wait_s, DOUBT_S if self._was_lost else wait_s) + 0.001)
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
        self._events.pop(pending.id, None)

    def abandon(self, pending: Pending) -> None:
        """Nobody wants the rest: tell the daemon, which frees the memory. Never waits, never raises."""
        self.forget(pending)
        if not pending.lost:
            self._send_and_forget("cancel", {"target": pending.id})

    async def close(self) -> None:
        """Let go of the socket; requests still in flight are cancelled by the daemon, which sees us leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.exchange.lose_all()
        if self._socket is not None and not self._socket.closed:
            self._socket.disable_monitor()
        self._context.destroy(linger=LINGER_MS)

    def _open(self) -> zmq.asyncio.Socket:
        """The socket, made on first use: it belongs to the loop that runs then."""
        if self._context.closed:
            raise UsageError("this client is closed")
        if self._socket is None:
            socket = self._context.socket(zmq.DEALER)
            monitor: zmq.asyncio.Socket = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            self._socket = socket
            set_options(socket, self.endpoint, self._key)
            connect(socket, self.endpoint)
            self._tasks = [asyncio.create_task(self._read(socket)), asyncio.create_task(self._watch(monitor))]
        return self._socket

    def _send_and_forget(self, op: str, fields: Mapping[str, Any]) -> None:
        if self._socket is None or self._socket.closed:
            return
        frames = self.exchange.frames(requests.request(op, fields))
        sent = self._socket.send_multipart(frames, zmq.NOBLOCK)
        if isinstance(sent, asyncio.Future) and sent.done() and not sent.cancelled():
            sent.exception()  # looked at, so that asyncio does not complain: what cannot be sent now need not be

    async def _read(self, socket: zmq.asyncio.Socket) -> None:
        while True:
            frames = await socket.recv_multipart()
            try:
                self.exchange.deliver(frames, time.monotonic())
                self._was_lost = False
            except BadReply as error:
                self._broken = error
                self.exchange.lose_all()
                return

    async def _watch(self, monitor: zmq.asyncio.Socket) -> None:
        while True:
            await monitor.recv_multipart()
            await asyncio.sleep(LAST_WORDS_S)
            self._was_lost = True
            self.exchange.lose_all()
