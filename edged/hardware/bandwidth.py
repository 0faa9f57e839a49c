"""How fast memory is read, measured: the ceiling of decode speed is this divided by the bytes of weights per token."""

from __future__ import annotations

import os
import threading
import time

MAX_BUFFER_BYTES = 256 << 20
"""Far beyond any last-level cache of the boards meant here."""


def measure_bandwidth(
    seconds: float = 1.0, *, available_bytes: int, threads: int | None = None, max_buffer_bytes: int = MAX_BUFFER_BYTES
) -> float | None:
    """Bytes read per second by all cores together, over about `seconds`.

    Uses at most an eighth of `available_bytes`; None when that is too little to outgrow the caches (64 MiB).
    numpy's reduction over bytes is vectorised and lets go of the interpreter lock; it is imported here and nowhere
    else, so that a process which never measures never loads it.
    """
    import numpy as np

    buffer_bytes = min(max_buffer_bytes, available_bytes // 8)
    if buffer_bytes < 64 << 20:
        return None
    workers = threads or len(os.sched_getaffinity(0))
    # Ones, not zeros: untouched zero pages are one and the same page of memory.
    buffers = [np.ones(buffer_bytes // workers, dtype=np.uint8) for _ in range(workers)]
    read_bytes = [0] * workers
    start = threading.Barrier(workers + 1)

    def read(index: int) -> None:
        start.wait()
        end_s = time.perf_counter() + seconds
        while time.perf_counter() < end_s:
            buffers[index].max()
            read_bytes[index] += buffers[index].nbytes

    readers = [threading.Thread(target=read, args=(index,), name="bandwidth") for index in range(workers)]
    for reader in readers:
        reader.start()
    start.wait()
    begin_s = time.perf_counter()
    for reader in readers:
        reader.join()
    return sum(read_bytes) / (time.perf_counter() - begin_s)
