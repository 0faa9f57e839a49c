"""What each engine has promised of the box's memory, in shared memory that all engines of one daemon map.

The front makes it, gives each engine process a row of its own and clears the row when the process ended. An engine
writes its row and reads the others'. A decision that must not be made twice at once (two engines giving away the same
free memory) is made under `locked`; the kernel lets go of the lock when its holder dies.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass

_ROW = struct.Struct("<7q")
MAX_ROWS = 64
SIZE = 4096
RETRY_S = 0.001
assert MAX_ROWS * _ROW.size <= SIZE


@dataclass(frozen=True, slots=True)
class Row:
    """One engine's promises in bytes.

    `fixed_bytes`: weights, mapped ones included, and work space; `kv_bytes`: booked KV; `wanted_bytes`: KV it waits
    for, since `wanted_us` of CLOCK_MONOTONIC. `pool`: HOST or CARD. `at_once`: what is promised is taken from the
    pool's free memory at the same moment (a card's); else it is taken when it is first written to, and then seen in
    the process.
    """

    pid: int
    fixed_bytes: int
    kv_bytes: int
    wanted_bytes: int = 0
    wanted_us: int = 0
    pool: int = 0
    at_once: bool = False

    @property
    def promised_bytes(self) -> int:
        return self.fixed_bytes + self.kv_bytes


HOST, CARD = 0, 1


class SharedLedger:
    """One mapping of it. `fd` is kept open: the lock is on it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._memory = mmap.mmap(fd, SIZE)
        self._seen, self._used = b"", list[tuple[int, Row]]()  # the rows in use, and the bytes that they were read from

    @staticmethod
    def create() -> SharedLedger:
        """A new, empty one; a child process can inherit its `fd`."""
        fd = os.memfd_create("edged-ledger", os.MFD_CLOEXEC)
        os.ftruncate(fd, SIZE)
        return SharedLedger(fd)

    def write(self, number: int, row: Row) -> None:
        """Replace a row; a pid of 0 clears it."""
        _ROW.pack_into(self._memory, number * _ROW.size, *(int(value) for value in astuple(row)))

    def clear(self, number: int) -> None:
        """The row's engine is gone."""
        self.write(number, Row(0, 0, 0))

    def read(self, number: int) -> Row:
        """A row; its pid is 0 when nobody has it."""
        return _row(_ROW.unpack_from(self._memory, number * _ROW.size))

    def rows(self, *, but: int | None = None) -> list[Row]:
        """All rows in use, without row `but`."""
        now = self._memory[: MAX_ROWS * _ROW.size]
        if now != self._seen:
            found = enumerate(_ROW.iter_unpack(now))
            self._seen, self._used = now, [(number, _row(values)) for number, values in found if values[0]]
        return [row for number, row in self._used if number != but]

    def free_row(self) -> int:
        """The number of a row that nobody has. Raises OSError when there is none."""
        for number in range(MAX_ROWS):
            if not self.read(number).pid:
                return number
        raise OSError(errno.EAGAIN, "too many engines")

    @contextlib.contextmanager
    def locked(self, patience_s: float) -> Iterator[bool]:
        """Nobody else decides meanwhile; False when another process held the lock for all of `patience_s`."""
        had = self._lock(time.monotonic() + patience_s)
        try:
            yield had
        finally:
            if had:
                fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def _lock(self, by_s: float) -> bool:
        while True:
            try:
                fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() > by_s:
                    return False
                time.sleep(RETRY_S)
            else:
                return True


def _row(values: tuple[int, ...]) -> Row:
    pid, fixed_bytes, kv_bytes, wanted_bytes, wanted_us, pool, at_once = values
    return Row(pid, fixed_bytes, kv_bytes, wanted_bytes, wanted_us, pool, bool(at_once))
