"""The system's refusals to read or write, said as ours: what is wrong with the disk, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from edged.store.durable import StoreError

FULL = "the disk is full: free some space and run the same command again, it goes on where it was"


@contextmanager
def disk_errors() -> Iterator[None]:
    """Within it an OSError is raised as StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(FULL) from error
        place = error.filename or "the store"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(f"{place}: {error.strerror}; the system's store is root's to change: use sudo") from error
        raise StoreError(f"{place}: {error.strerror or error}") from error
