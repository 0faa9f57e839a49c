"""The public socket: who is connected, what they send, what they are sent. Owns the ROUTER socket, its monitor and the
outboxes; knows nothing of what messages mean.

A client is one connection. Over ipc the kernel says its uid (`Peer-Address`), libzmq its socket type, and the number of
its file descriptor joins its messages to the monitor's DISCONNECTED event: that is how a vanished client is known.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq

from edged.protocol.codec import pack
from edged.protocol.endpoint import socket_path
from edged.protocol.limits import WireLimits
from edged.serving import descriptors
from edged.serving.keyring import ServerKey
from edged.serving.outbox import Envelope, Frames, Outbox
from edged.serving.peer import Peer, peer_of, socket_type
from edged.serving.pump import Pump
from edged.serving.unread import Unread

log = logging.getLogger(__name__)

SEND_HWM = 64  # messages libzmq may hold per client beside the outbox
FLUSH_S = 0.01  # how soon a client that did not take a message is tried again, at first…
MAX_FLUSH_S = 0.16  # …and after it took nothing many times
DOMAIN = b"edged"  # of ZAP: who may come in by a key is asked there
UNTOLD = 1001  # connections that libzmq takes and gives back before it waits for its events to be read
MAX_ENVELOPE = 3  # routing id, correlation and delimiter
_EVENT = struct.Struct("=hi")
SOCKET_MODE = 0o660


@dataclass(slots=True, eq=False)
class Client:
    """One connection. `single_reply` is True for a REQ socket, which can take exactly one reply per request."""

    routing_id: bytes
    fd: int
    peer: Peer
    single_reply: bool
    outbox: Outbox = field(repr=False)
    gone: bool = False
    slow: bool = False  # left too much unread, was told, and has not read it all yet
    welcome: bool = False  # one of the `max_clients` whose work is taken
    groups: frozenset[int] | None = None  # of its user, once they were looked up
    door: Door | None = field(default=None, repr=False)  # by which it came

    @property
    def uid(self) -> int:
        return self.peer.uid


Handler = Callable[[Client, Envelope, Sequence[zmq.Frame]], None]


class Door:
    """Calls `on_request(client, envelope, frames)`, `on_gone(client)` and `on_slow(client, envelope)`.

    And `on_first()` when somebody connects and nobody was connected before. It is one of so many `doors`, which share
    the descriptors that are free when it opens.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        limits: WireLimits,
        *,
        on_request: Handler,
        on_gone: Callable[[Client], None],
        on_slow: Callable[[Client, Envelope], None],
        on_first: Callable[[], None] = lambda: None,
        server_key: ServerKey | None = None,
        doors: int = 1,
        unread: Unread | None = None,
    ) -> None:
        self.limits, self._doors = limits, doors
        self._unread = unread or Unread(limits)
        self._on_request, self._on_gone, self._on_slow = on_request, on_gone, on_slow
        self._on_first = on_first
        self._socket = context.socket(zmq.ROUTER)
        for option, value in {
            zmq.ROUTER_MANDATORY: 1,
            zmq.ROUTER_HANDOVER: 0,
            zmq.SNDHWM: SEND_HWM,
            zmq.RCVHWM: SEND_HWM,
            zmq.MAXMSGSIZE: max(limits.max_header_bytes, limits.max_frame_bytes),
            zmq.LINGER: 500,
            zmq.HANDSHAKE_IVL: 10_000,
            zmq.BACKLOG: 1024,
        }.items():
            self._socket.setsockopt(option, value)
        if server_key is not None:
            _ask_for_keys(self._socket, server_key)
        # not the HANDSHAKE_FAILED events: their value is an errno, not a descriptor, and DISCONNECTED follows each
        self._monitor = _monitor(context, self._socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._open: dict[int, None] = {}  # descriptors, oldest first
        self._clients: dict[bytes, Client] = {}
        self._by_fd: dict[int, Client] = {}
        self._blocked: set[Client] = set()
        self._welcome = 0
        self._cut = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_s = FLUSH_S
        self.requests_not_taken = 0
        self._endpoint = ""

    def open(self, endpoint: str, listening: int | None = None) -> None:
        """Bind and begin to read. `listening`: a socket that listens there already, whose descriptor becomes ours.

        Raises zmq.ZMQError when the endpoint cannot be bound.
        """
        if listening is not None:
            self._socket.setsockopt(zmq.USE_FD, listening)
        self._endpoint = endpoint
        self._spare_fds = (descriptors.limit() - descriptors.open_count()) // self._doors
        self._socket.bind(endpoint)
        path = socket_path(endpoint)
        self._path = str(path) if path is not None else None
        if path is not None:
            os.chmod(path, SOCKET_MODE)
        self._pump = Pump(self._socket, self._receive, MAX_ENVELOPE + 1 + self.limits.max_frames)
        self._monitor_pump = Pump(self._monitor, self._watch)

    def close(self) -> None:
        """Stop reading, give what was sent half a second to leave, take the socket file away."""
        self._pump.close()
        self._monitor_pump.drain_all()  # libzmq waits while it cannot tell what it has to tell
        self._monitor_pump.close()
        if self._flush_timer:
            self._flush_timer.cancel()
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        path = socket_path(self._endpoint)
        if path is not None:
            path.unlink(missing_ok=True)

    @property
    def connections(self) -> int:
        return len(self._open)

    @property
    def news_fd(self) -> int:
        """Readable while connections have come or gone that are not counted yet."""
        return int(self._monitor.getsockopt(zmq.FD))

    @property
    def blocked_clients(self) -> int:
        return len(self._blocked)

    def send(self, client: Client, envelope: Envelope, message: dict[str, Any], frames: tuple[bytes, ...] = ()) -> None:
        """Send now, or keep it in the client's outbox; a client that left too much unread is reported by `on_slow`."""
        if client.gone:
            return
        data = pack(message)
        parts = self._unread.book(client, frames)
        if client.outbox or not self._try(client, envelope, data, parts):
            if client.gone:
                return
            within = client.outbox.add(envelope, message, len(data), time.monotonic(), parts)
            if client not in self._blocked:
                self._blocked.add(client)
                self._flush_s = FLUSH_S
                self._arm()
            if not within:
                self._slow(client, envelope)
        self._pump.kick()

    # ---- cuts: the guard's thread may call these; that a connection is gone the monitor tells the event loop

    def cut_silent(self) -> int:
        """Cut every connection that has not sent one whole message; how many."""
        return self._hang_up_all([fd for fd in self._open.copy() if fd not in self._by_fd])

    def cut_flooding(self, unread_bytes: int) -> int:
        """Cut every connection with as much waiting in the kernel for libzmq to read it, or more; how many."""
        return self._hang_up_all([fd for fd in self._open.copy() if descriptors.unread_bytes(fd) >= unread_bytes])

    def cut_clients(self, spare: Callable[[Client], bool]) -> int:
        """Cut every client but those to spare; how many."""
        return self._hang_up_all([fd for fd, client in self._by_fd.copy().items() if not spare(client)])

    def _hang_up_all(self, fds: list[int]) -> int:
        for fd in fds:
            descriptors.hang_up(fd, self._path)
        return len(fds)

    def hang_up_keys(self, names: set[str]) -> None:
        """Cut the connections of these keys: they were taken away."""
        for client in list(self._by_fd.values()):
            if client.peer.key in names:
                log.warning("connection cut, its key was taken away %s", client.peer.label())
                self._hang_up(client.fd)

    def _slow(self, client: Client, envelope: Envelope) -> None:
        """Tell once; until the client has read everything that waits, its further requests are not taken."""
        if not client.slow:
            client.slow = True
            client.outbox.keep_last_words()
            self._on_slow(client, envelope)

    def _try(self, client: Client, envelope: Envelope, data: bytes, frames: Frames) -> bool:
        try:
            self._socket.send_multipart([client.routing_id, *envelope, data, *frames], zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._lost(client)
            return False
        return True

    def _arm(self) -> None:
        if self._flush_timer is None:
            self._flush_timer = asyncio.get_running_loop().call_later(self._flush_s, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        now_s = time.monotonic()
        took = False
        for client in list(self._blocked):
            took |= client.outbox.flush(functools.partial(self._try, client), now_s)
            since_s = client.outbox.blocked_since_s
            if client.gone or since_s is None:
                self._blocked.discard(client)
                client.slow = False
            elif now_s - since_s > self.limits.slow_consumer_s:
                self._slow(client, client.outbox.first_envelope())
        self._flush_s = FLUSH_S if took else min(self._flush_s * 2, MAX_FLUSH_S)
        if self._blocked:
            self._arm()
        self._pump.kick()

    def _receive(self, frames: Sequence[zmq.Frame]) -> None:
        self._monitor_pump.drain_all()  # connections come and go before their messages are judged
        client = self._client(frames)
        if client is None:
            return
        if not client.welcome and self._welcome < self.limits.max_clients:
            client.welcome = True
            self._welcome += 1
        if client.slow:
            self.requests_not_taken += 1
            return
        envelope, rest = _split(frames[1:], client.single_reply)
        self._on_request(client, envelope, rest)

    def _client(self, frames: Sequence[zmq.Frame]) -> Client | None:
        routing_id = bytes(frames[0].buffer)
        last = frames[-1]
        fd = _descriptor(last)
        if fd not in self._open:
            return None  # it left before its message was read
        known = self._clients.get(routing_id)
        if known is not None and known.fd == fd:
            return known
        if known is not None:
            self._lost(known)
        outbox = Outbox(self.limits.outbox_bytes)
        client = Client(routing_id, fd, peer_of(last), socket_type(last) == "REQ", outbox)
        client.door = self
        self._clients[routing_id] = self._by_fd[fd] = client
        return client

    def _watch(self, frames: Sequence[zmq.Frame]) -> None:
        event, fd = _EVENT.unpack_from(frames[0].buffer)
        if event == zmq.EVENT_ACCEPTED:
            self._open.pop(fd, None)
            self._open[fd] = None
            if len(self._open) == 1:
                self._on_first()
            if len(self._open) > self._most_connections():
                self._cut_one_too_many(self._least_needed(fd))
        else:
            self._open.pop(fd, None)
            client = self._by_fd.get(fd)
            if client is not None:
                self._lost(client)

    def _lost(self, client: Client) -> None:
        if client.gone:
            return
        client.gone = True
        self._welcome -= client.welcome
        client.outbox.clear()
        if self._clients.get(client.routing_id) is client:
            del self._clients[client.routing_id]
        if self._by_fd.get(client.fd) is client:
            del self._by_fd[client.fd]
        self._on_gone(client)

    def _most_connections(self) -> int:
        """Room beyond `max_clients` for those that are told `busy`, and for the silent.

        Half of the descriptors that those leave which libzmq may take while nobody reads what it tells.
        """
        return max(1, min(2 * self.limits.max_clients + 64, (self._spare_fds - UNTOLD) // 2))

    def _least_needed(self, newest: int) -> int:
        """The oldest connection that has not asked anything yet, else the newest.

        Not a newer one: its request may be on its way, and would be lost.
        """
        return next((fd for fd in self._open if fd not in self._by_fd), newest)

    def _cut_one_too_many(self, fd: int) -> None:
        self._cut += 1
        if self._cut.bit_count() == 1:  # 1, 2, 4, 8 …: told, and the log not filled
            log.warning("connections=%d are the most there may be, cut=%d", self._most_connections(), self._cut)
        self._hang_up(fd)

    def _hang_up(self, fd: int) -> None:
        """Cut one connection; its client's library connects again later. To unbind instead would cut all of them.

        libzmq aborts the process when descriptors run out, so this must happen well before.
        """
        self._open.pop(fd, None)  # its DISCONNECTED event is on the way, and more connections may come before it
        descriptors.hang_up(fd, self._path)


def _monitor(context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    """Where libzmq tells of these events. It waits when `UNTOLD` of them are unread, and accepts nobody meanwhile."""
    address = f"inproc://monitor-{id(socket)}"
    socket.monitor(address, events)
    monitor = context.socket(zmq.PAIR)
    monitor.setsockopt(zmq.RCVHWM, UNTOLD - 1000)  # beside those of libzmq's own end
    monitor.setsockopt(zmq.LINGER, 0)
    monitor.connect(address)
    return monitor


def _ask_for_keys(socket: zmq.Socket[bytes], key: ServerKey) -> None:
    """CURVE as the server; who comes in is the ZAP handler's word. A client that vanished is known in two minutes."""
    for option, value in {
        zmq.CURVE_SERVER: 1,
        zmq.ZAP_ENFORCE_DOMAIN: 1,
        zmq.IPV6: 1,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: 60,
        zmq.TCP_KEEPALIVE_INTVL: 15,
        zmq.TCP_KEEPALIVE_CNT: 4,
    }.items():
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)


def _split(frames: Sequence[zmq.Frame], is_req: bool) -> tuple[Envelope, Sequence[zmq.Frame]]:
    """The envelope to mirror (up to and with the empty delimiter, if any) and the frames after it.

    A REQ socket with correlation puts its own id before the delimiter; nobody else may put anything there.
    """
    for index, frame in enumerate(frames[:2] if is_req else frames[:1]):
        if len(frame) == 0:
            return tuple(bytes(part.buffer) for part in frames[: index + 1]), frames[index + 1 :]
    return (), frames


def _descriptor(frame: zmq.Frame) -> int:
    """Of the connection it came by; -1 for a frame that says nothing of it, which only a broken peer can send."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1
