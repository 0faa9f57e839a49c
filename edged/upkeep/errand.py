"""One errand of the updater for somebody who asked: wake it, follow its report, say how it ended."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edged.errors import Busy, Unavailable
from edged.store.durable import StoreError
from edged.store.lock import locked
from edged.update import wish
from edged.update.report import Report, read_report
from edged.update.wish import Action, Wish
from edged.upkeep.waker import Waker

LOOK_S = 0.1
SILENCE_S = 90.0  # from the wish to the updater's first word: Python and a probe of the box on a slow card
LOCK = "lock"  # the updater's own, in STATE/update
ENDS: dict[Action, frozenset[str]] = {
    "check": frozenset({"available", "waiting", "up_to_date", "failed"}),
    "apply": frozenset({"staged", "waiting", "up_to_date", "failed"}),
}


async def run_updater(
    folder: Path,
    waker: Waker,
    action: Action,
    model: str,
    tell: Callable[[dict[str, Any]], None],
    silence_s: float = SILENCE_S,
) -> Report:
    """The report that the run ended with; `tell` gets its fields each time they change.

    Raises Unavailable when the updater does not start or ends without a last word, Busy when none comes.
    """
    await waker.leave_time()  # an errand before this one has said its last word, and may still be on its way out
    if waker.ended is False:
        raise Busy("the updater is at work already; see update.status", retry_after_ms=10_000)
    wanted = Wish(action, secrets.token_hex(8), model)
    try:
        await waker.wake(wanted)
    except OSError as error:
        raise Unavailable(f"the updater cannot be started: {error.strerror}") from error
    silent_until_s, told = time.monotonic() + silence_s, Report()
    while True:
        at_work = await asyncio.to_thread(_is_at_work, folder, waker)
        report = await asyncio.to_thread(read_report, folder)
        is_ours = report.asked == wanted.id
        if is_ours and report != told:
            told = report
            tell(progress(report))
        if is_ours and report.phase in ENDS[action]:
            return report
        if not at_work and (is_ours or at_work is False):
            raise Unavailable("the updater ended without a word; its log says why")
        if not is_ours and time.monotonic() > silent_until_s:
            await asyncio.to_thread(wish.take, folder)
            raise Busy("the updater did not come, or another one is at work; try again", retry_after_ms=60_000)
        await asyncio.sleep(LOOK_S)


def progress(report: Report) -> dict[str, Any]:
    """What a client that waits is told."""
    names = ("phase", "model", "version", "release", "bytes_done", "bytes_total", "bytes_saved", "code", "message")
    values = asdict(report)
    return {name: values[name] for name in names if values[name] not in ("", None)}


def _is_at_work(folder: Path, waker: Waker) -> bool | None:
    """None: no updater holds the lock, but systemd may be about to start one."""
    if waker.ended is not None:
        return not waker.ended
    try:
        with locked(folder / LOCK, 0):
            return None
    except (StoreError, OSError):
        return True
