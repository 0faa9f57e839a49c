"""This process's descriptors: how many are open, which are connections at a door, and how to end one of those.

The connections are libzmq's, which closes them when it likes and whose numbers are soon used again: each is looked at
before it is touched. Any thread may call these.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import stat
import struct
import termios

FOLDER = "/proc/self/fd"
_INT = struct.Struct("i")


def open_count() -> int:
    """How many are open now."""
    return os.stat(FOLDER).st_size or len(os.listdir(FOLDER))  # kernels before 6.2 tell no size


def limit() -> int:
    """How many there may be."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def hang_up(fd: int, path: str | None) -> None:
    """End this connection, if it is one of the socket file at `path`, or, for None, of TCP."""
    with contextlib.suppress(OSError):
        copy = os.dup(fd)
        if not stat.S_ISSOCK(os.fstat(copy).st_mode):
            os.close(copy)
            return
        with socket.socket(fileno=copy) as connection:
            if _is_ours(connection, path):
                connection.shutdown(socket.SHUT_RDWR)


def unread_bytes(fd: int) -> int:
    """What its peer has sent and the kernel still holds."""
    with contextlib.suppress(OSError):
        return int(_INT.unpack(fcntl.ioctl(fd, termios.FIONREAD, _INT.pack(0)))[0])
    return 0


def _is_ours(found: socket.socket, path: str | None) -> bool:
    if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return False
    return found.getsockname() == path if path is not None else found.family != socket.AF_UNIX
