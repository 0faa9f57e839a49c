"""What both ends ask of a ZeroMQ socket."""

from __future__ import annotations

from typing import Any

import zmq

READABLE = int(zmq.POLLIN)  # pyzmq's enum costs more than the question


def has_message(socket: zmq.Socket[Any]) -> bool:
    """Whether one can be received now; cheaper than a poll or a failed try. It also arms the fd again."""
    return bool(int(socket.getsockopt(zmq.EVENTS)) & READABLE)
