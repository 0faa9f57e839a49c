"""The blocking connection: one DEALER socket and its monitor, which says when the daemon has gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq

from edged.client import requests
from edged.client.errors import DaemonNotFound, NoReply, UsageError
from edged.client.exchange import Exchange, Pending
from edged.client.locate import find_daemon, find_key, trouble_at
from edged.client.network import needs_key, use_key
from edged.protocol.keys import ClientKey
from edged.protocol.sockets import has_message

Key = str | Path | ClientKey | None
LINGER_MS = 300  # a last `cancel` may still leave
RECONNECT_MS = 50
DOUBT_S = 0.25  # after a loss, until something is heard: look again so often whether there is a daemon at all


class Connection:
    """Owns the socket and the exchange. For one thread at a time."""

    def __init__(self, endpoint: str | None, timeout_s: float, key: Key = None) -> None:
        if not 0 < timeout_s < float("inf"):
            raise UsageError("timeout_s: a number of seconds above 0")
        found = find_key(key)
        self.endpoint = find_daemon(endpoint, found)
        self.exchange = Exchange(timeout_s)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._socket = self._context.socket(zmq.DEALER)
            self._monitor = self._socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            set_options(self._socket, self.endpoint, found)
            self._socket.setsockopt(zmq.SNDTIMEO, int(timeout_s * 1000))
            connect(self._socket, self.endpoint)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._was_lost = False
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)

    def ask(self, request: Mapping[str, Any], attachments: Sequence[bytes] = (), *, patient: bool = False) -> Pending:
        """Send a request; its replies come from `receive`. Raises DaemonNotFound when the daemon has gone since."""
        self._note_end()
        if self._was_lost and (why := trouble_at(self.endpoint)):
            raise DaemonNotFound(((self.endpoint, why),))
        pending, frames = self.exchange.open(request, attachments, time.monotonic(), patient=patient)
        try:
            self._send(frames)
        except BaseException:
            self.exchange.close(pending)
            raise
        return pending

    def receive(self, pending: Pending) -> dict[str, Any]:
        """The next reply of a request. Raises NoReply and ConnectionLost."""
        while (reply := self.exchange.take(pending)) is None:
            now_s = time.monotonic()
            if self.exchange.wants_ping(pending, now_s):
                self._send(self.exchange.frames(requests.request("ping", {})))
            wait_s = self.exchange.wait_s(pending, now_s)
            ready = dict(self._poller.poll(int(min(wait_s, DOUBT_S if self._was_lost else wait_s) * 1000) + 1))
            self._read()
            if self._monitor in ready:
                self._note_end()
            elif self._was_lost and not pending.replies and (why := trouble_at(self.endpoint)):
                raise DaemonNotFound(((self.endpoint, why),))
        return reply

    def call(self, op: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One request with one reply."""
        return self.call_with(requests.request(op, fields))

    def call_with(
        self, request: Mapping[str, Any], attachments: Sequence[bytes] = (), *, patient: bool = False
    ) -> dict[str, Any]:
        """One request with one reply; `patient` as in Pending."""
        pending = self.ask(request, attachments, patient=patient)
        try:
            return self.receive(pending)
        finally:
            self.exchange.close(pending)

    def abandon(self, pending: Pending) -> None:
        """Nobody wants the rest: tell the daemon, which frees the memory. Never waits, never raises."""
        self.exchange.close(pending)
        if not pending.lost and not self._socket.closed:
            frames = self.exchange.frames(requests.request("cancel", {"target": pending.id}))
            with contextlib.suppress(zmq.ZMQError):
                self._socket.send_multipart(frames, zmq.NOBLOCK)

    def close(self) -> None:
        """Let go of the socket; requests still in flight are cancelled by the daemon, which sees us leave."""
        if not self._socket.closed:
            self._socket.disable_monitor()
        self._context.destroy(linger=LINGER_MS)

    def _send(self, frames: list[bytes]) -> None:
        if self._socket.closed:
            raise UsageError("this client is closed")
        try:
            self._socket.send_multipart(frames)
        except zmq.Again:
            raise NoReply("the daemon takes no more requests of this client; it may hang: see `edged status`") from None

    def _read(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.exchange.deliver(frames, time.monotonic())
            self._was_lost = False

    def _note_end(self) -> None:
        """If the daemon has gone, what was in flight is lost."""
        if self._socket.closed or not has_message(self._monitor):
            return
        while has_message(self._monitor):
            self._monitor.recv_multipart()
        self._read()  # what it said before it went still counts
        self._was_lost = True
        self.exchange.lose_all()


def set_options(socket: zmq.Socket[Any], endpoint: str, key: ClientKey | None) -> None:
    """What both kinds of connection want of their socket."""
    if key is not None and needs_key(endpoint):
        use_key(socket, key)
    socket.setsockopt(zmq.LINGER, LINGER_MS)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 2000)


def connect(socket: zmq.Socket[Any], endpoint: str) -> None:
    """Raises DaemonNotFound for an endpoint ZeroMQ does not understand."""
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as error:
        raise DaemonNotFound(((endpoint, f"not a usable ZeroMQ endpoint ({error})"),)) from error
