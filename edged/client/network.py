"""A daemon over TCP: every connection is encrypted and needs a key (CURVE). Nothing here is used on the box itself."""

from __future__ import annotations

import contextlib
import struct
import time
from typing import Any

import zmq

from edged.protocol.keys import ClientKey

HANDSHAKE_S = 5.0
_EVENT = struct.Struct("=hi")  # of a socket monitor: what happened, and a number that goes with it
_NO_KEY = "over TCP a key is needed: EDGED_KEY_FILE names its file, as `edged keys new` made it on the daemon's box"
_UNKNOWN = "the daemon does not know this key, or it was revoked: ask the box's admin for another"
_OTHER = "it does not take this key for its own: the daemon has another key now, or something else answers there"
_NOBODY = "nobody listens there, or a firewall is between"


def needs_key(endpoint: str) -> bool:
    """Whether it is reached over a network."""
    return endpoint.startswith("tcp://")


def use_key(socket: zmq.Socket[Any], key: ClientKey) -> None:
    """Before the socket connects."""
    socket.setsockopt(zmq.CURVE_PUBLICKEY, key.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, key.secret.encode())
    socket.setsockopt(zmq.CURVE_SERVERKEY, key.server.encode())
    socket.setsockopt(zmq.IPV6, 1)


def trouble_over_tcp(endpoint: str, key: ClientKey | None) -> str:
    """What is wrong with a connection there, "" when keys were exchanged. ZeroMQ itself tries for ever, in silence."""
    if key is None:
        return _NO_KEY
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        socket = context.socket(zmq.DEALER)
        use_key(socket, key)
        monitor = socket.get_monitor_socket()
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            return f"not a usable ZeroMQ endpoint ({error})"
        trouble = _handshake(monitor)
        with contextlib.suppress(zmq.ZMQError):
            socket.disable_monitor()
        return trouble
    finally:
        context.destroy(linger=0)


def _handshake(monitor: zmq.Socket[Any]) -> str:
    trouble, end_s = _NOBODY, time.monotonic() + HANDSHAKE_S
    while (left_s := end_s - time.monotonic()) > 0 and monitor.poll(int(left_s * 1000) + 1):
        event, _ = _EVENT.unpack_from(monitor.recv_multipart()[0])
        match event:
            case zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return ""
            case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                return _UNKNOWN
            case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return _OTHER
            case zmq.EVENT_CLOSED:  # refused at once
                return _NOBODY
            case _:
                pass
    return trouble
