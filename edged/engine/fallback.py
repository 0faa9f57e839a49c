"""When the chosen provider fails on the model itself: the next best, loudly, with the failure kept.

A failure is kept only when another provider then did run the model; where none does, the model is at fault, not they.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from typing import TypeVar

from edged.engine.choose import forget_not, select
from edged.engine.options import EngineOptions
from edged.errors import ModelError
from edged.hardware.selection import Selection
from edged.hardware.trial_messages import CPU
from edged.hardware.tune_table import Failure

log = logging.getLogger(__name__)

Opened = TypeVar("Opened")
MAX_REASON_CHARS = 300


def open_on_best(
    options: EngineOptions, tell: Callable[..., None], open_on: Callable[[Selection], Opened]
) -> tuple[Opened, Selection]:
    """`open_on(selection)` loads the model and asks it a first question. Raises what it raised on the first provider
    when no other can do better, and ModelError when the settings allow no other."""
    failures: list[Failure] = []
    first: Exception | None = None
    while True:
        selection = select(options, tell, failures)
        key = selection.got.key
        if first is not None and any(failure.provider == key for failure in failures):
            raise first
        tell(f"loading on {key}", provider=key)
        try:
            opened = open_on(selection)
        except Exception as error:
            if key == CPU.key:
                raise
            first = first or error
            reason = error.reason if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            log.error("provider failed model=%s provider=%s: %s; trying the next best", options.name, key, reason)
            failures.append(Failure(key, reason[:MAX_REASON_CHARS], time.time()))
            gc.collect()  # what the failed one holds
        else:
            for failure in failures:
                forget_not(options, failure)
            return opened, selection


def take_blame(options: EngineOptions) -> None:
    """Keep what the front observed: engines on this provider ended again and again. The CPU is never blamed, for there
    is nothing to go to."""
    if options.blamed_provider and options.blamed_provider != CPU.key:
        forget_not(options, Failure(options.blamed_provider, options.blamed_reason[:MAX_REASON_CHARS], time.time()))
