"""A long native call that can be ended early: it runs in a thread of its own while the calling thread listens."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edged.engine.backends.base import Interrupted
from edged.engine.backends.genai_c import Generator

LOOK_S = 0.01  # between two looks for a reason to end the call


def call(generator: Generator, work: Callable[[], None], stopped: Callable[[], bool]) -> None:
    """Do `work` on this generator; `stopped` is asked meanwhile, in the calling thread.

    Raises Interrupted when `stopped` said True and the call then failed, for that reason or another, and whatever
    `work` raises by itself.
    """
    failed: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # the library's own kinds
            failed.append(error.with_traceback(None))  # its frames would keep the generator and its KV memory

    thread = threading.Thread(target=run, name="native call")
    thread.start()
    interrupted = False
    try:
        while thread.is_alive():
            thread.join(LOOK_S)
            if stopped() and not interrupted:  # it may have more to do, so it is asked to the end
                interrupted = True
                generator.interrupt()
    finally:
        thread.join()
    if interrupted:
        generator.resume()
    if failed and interrupted:
        raise Interrupted
    if failed:
        raise failed.pop()
