"""All ways in as one: the socket file of this box and, where it is wanted, TCP with keys. Owns the doors and the ZAP.

The router sends to clients and need not know by which door they came.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import zmq

from edged.errors import ConfigError
from edged.protocol.limits import WireLimits
from edged.serving.door import Client, Door, Handler
from edged.serving.keyring import Keyring
from edged.serving.outbox import Envelope
from edged.serving.unread import Unread
from edged.serving.zap import Zap

log = logging.getLogger(__name__)


class Doors:
    """Each door has the ceilings of `limits` for itself, but for replies left unread; `expected` ones share the
    descriptors."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        limits: WireLimits,
        *,
        on_request: Handler,
        on_gone: Callable[[Client], None],
        on_slow: Callable[[Client, Envelope], None],
        expected: int = 1,
    ) -> None:
        self._context, self._limits = context, limits
        self._on_request, self._on_gone, self._on_slow = on_request, on_gone, on_slow
        self._doors: list[Door] = []
        self._expected = expected
        self.on_first: Callable[[], None] = lambda: None  # somebody is connected at a door where nobody was
        self._unread = Unread(limits)
        self._zap: Zap | None = None

    def open(self, endpoint: str, keyring: Keyring | None = None, listening: int | None = None) -> None:
        """Listen at one more endpoint, or take over what listens there already.

        Raises ConfigError when that cannot be, or a network endpoint has no keys.
        """
        if not endpoint.startswith(("ipc://", "inproc://")) and keyring is None:
            raise ConfigError(f"endpoint {endpoint}: over a network only with keys; make one: edged keys new NAME")
        if keyring is not None and self._zap is None:
            self._zap = Zap(self._context, keyring, self._cut)
        door = Door(
            self._context,
            self._limits,
            on_request=self._on_request,
            on_gone=self._on_gone,
            on_slow=self._on_slow,
            on_first=lambda: self.on_first(),
            server_key=keyring.server if keyring is not None else None,
            doors=self._expected,
            unread=self._unread,
        )
        try:
            door.open(endpoint, listening)
        except zmq.ZMQError as error:
            raise ConfigError(f"endpoint {endpoint}: cannot listen there: {error}") from error
        self._doors.append(door)

    def close(self) -> None:
        for door in self._doors:
            door.close()
        if self._zap is not None:
            self._zap.close()

    def send(self, client: Client, envelope: Envelope, message: dict[str, Any], frames: tuple[bytes, ...] = ()) -> None:
        """By the door that the client came by."""
        assert client.door is not None
        client.door.send(client, envelope, message, frames)

    def has_room(self, client: Client, size_bytes: int) -> bool:
        """Whether a reply with attachments of this size may be sent to it now; it and others have to read first if not.

        Whoever has long read nothing while the room of all runs short is cut.
        """
        stale = self._unread.stale()
        if isinstance(stale, Client) and stale.door is not None and not stale.gone:
            log.warning("connection cut, it left large replies unread %s", stale.peer.label())
            stale.door.cut_clients(lambda other: other is not stale)
        return self._unread.has_room(client, size_bytes)

    def unread_of(self, client: Client) -> int:
        """Bytes of attachments that this client leaves unread."""
        return self._unread.bytes_of(client)

    @property
    def unread_bytes(self) -> int:
        """Attachments of replies that lie unread."""
        return self._unread.total_bytes

    @property
    def limits(self) -> WireLimits:
        return self._limits

    @limits.setter
    def limits(self, limits: WireLimits) -> None:
        self._limits = self._unread.limits = limits
        for door in self._doors:
            door.limits = limits

    @property
    def connections(self) -> int:
        return sum(door.connections for door in self._doors)

    @property
    def blocked_clients(self) -> int:
        return sum(door.blocked_clients for door in self._doors)

    @property
    def news_fds(self) -> list[int]:
        """Readable while connections have come or gone that are not counted yet."""
        return [door.news_fd for door in self._doors]

    def cut_silent(self) -> int:
        """Cut every connection that has not sent one whole message; how many."""
        return sum(door.cut_silent() for door in self._doors)

    def cut_flooding(self, unread_bytes: int) -> int:
        """Cut every connection with as much waiting in the kernel for libzmq to read it, or more; how many."""
        return sum(door.cut_flooding(unread_bytes) for door in self._doors)

    def cut_clients(self, spare: Callable[[Client], bool]) -> int:
        """Cut every client but those to spare; how many."""
        return sum(door.cut_clients(spare) for door in self._doors)

    def _cut(self, revoked: set[str]) -> None:
        for door in self._doors:
            door.hang_up_keys(revoked)
