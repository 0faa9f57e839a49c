"""The pulse: 48 bytes of shared memory in which the engine says what it is doing and how long that may take.

The engine owns and writes it before and after each native call (about 1 µs, so it can be done for every token); the
front maps the same memory and judges a hang by it. It outlives the engine, so after a crash it names the request that
was in the native call.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass

_LAYOUT = struct.Struct("<QQdd")  # sequence (odd while written), rid, started_s, allowed_s
SIZE = 4096
NO_REQUEST = 0


@dataclass(frozen=True, slots=True)
class Beat:
    """One reading. `rid` is the request inside a native call, NO_REQUEST outside of one; times in CLOCK_MONOTONIC s."""

    sequence: int
    rid: int
    started_s: float
    allowed_s: float

    def overdue(self, now_s: float, *, factor: float, floor_s: float) -> bool:
        """Whether this beat has lasted longer than `factor` times what it announced, and at least `floor_s`."""
        return now_s - self.started_s > max(factor * self.allowed_s, floor_s)


def create() -> int:
    """A new pulse as a file descriptor that a child process can inherit."""
    fd = os.memfd_create("edged-pulse", os.MFD_CLOEXEC)
    os.ftruncate(fd, SIZE)
    return fd


class PulseWriter:
    """The engine's side."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE)
        self._sequence = 0

    def beat(self, allowed_s: float, rid: int = NO_REQUEST) -> None:
        """What the engine does from now on may take `allowed_s` seconds; `rid`: a native call for that request."""
        sequence = self._sequence + 2
        memory = self._memory
        _LAYOUT.pack_into(memory, 0, sequence - 1, rid, time.monotonic(), allowed_s)
        struct.pack_into("<Q", memory, 0, sequence)
        self._sequence = sequence


class PulseReader:
    """The front's side."""

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)

    def read(self) -> Beat:
        """The latest beat; one that is just being written is read again a few times, then taken as it is."""
        for _ in range(8):
            beat = Beat(*_LAYOUT.unpack_from(self._memory, 0))
            if beat.sequence % 2 == 0 and struct.unpack_from("<Q", self._memory, 0)[0] == beat.sequence:
                return beat
        return beat

    def close(self) -> None:
        self._memory.close()
