"""The place of the socket: a directory that nobody else can change, and the lock that keeps a second daemon away."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edged.errors import ConfigError
from edged.protocol.endpoint import MAX_IPC_PATH_BYTES, socket_path


@contextlib.contextmanager
def only_daemon(endpoint: str) -> Iterator[None]:
    """Hold the lock beside the socket; a second bind on the same path would succeed and take the clients away.

    Raises ConfigError when another daemon has it or the directory is not safe.
    """
    path = socket_path(endpoint)
    if path is None:
        yield
        return
    if len(str(path).encode()) > MAX_IPC_PATH_BYTES:
        raise ConfigError(f"endpoint: the socket's path is longer than {MAX_IPC_PATH_BYTES} bytes: {path}")
    make_directory(path.parent)
    lock_path = path.with_name(path.name + ".lock")
    try:
        lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"{lock_path}: cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConfigError(f"another edged serves {path} already; stop it, or set another endpoint") from None
    try:
        path.unlink(missing_ok=True)  # a stale socket file of a daemon that was killed
        yield
    finally:
        os.close(lock)


def make_directory(directory: Path) -> None:
    """Make the socket's directory (0700) if need be, and refuse one in which others could put theirs in its place.

    Raises ConfigError for a symbolic link, for a directory that is neither ours nor root's, and for one that others may
    write to, unless its files are each their owner's alone (/tmp and its like).
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(directory)
    except OSError as error:
        raise ConfigError(f"{directory}: cannot be made for the socket: {error.strerror}") from error
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"{directory}: a symbolic link; name the directory itself in endpoint")
    if found.st_uid not in (os.getuid(), 0):
        raise ConfigError(
            f"{directory}: belongs to uid {found.st_uid}, not to this user; remove it or set XDG_RUNTIME_DIR"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"{directory}: others may write to it (mode {stat.S_IMODE(found.st_mode):o}) and could put a socket of "
            f"theirs in the place of edged's; chmod go-w {directory}"
        )
