"""Wakes the updater: systemd starts it when the wish appears, or, in a user's run, this process does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from edged import children
from edged.update import wish
from edged.update.wish import Wish

LEAVE_S = 5.0
SERVICE_STATE = Path("/var/lib/edged")  # edged-update.path watches this one


def is_service(state: Path) -> bool:
    """Whether this is the system's service, whose updater is a unit of its own."""
    return state == SERVICE_STATE and "NOTIFY_SOCKET" in os.environ


class Waker:
    """Owns the updater process that it started, if any. `environment`: what that one is to know of our settings;
    `by_service`: the wish alone wakes it."""

    def __init__(self, state: Path, environment: dict[str, str], *, by_service: bool) -> None:
        self._folder, self._environment, self._by_service = state / "update", environment, by_service
        self._child: asyncio.subprocess.Process | None = None

    async def wake(self, wanted: Wish) -> None:
        """Raises OSError when the wish cannot be written or the process not be started."""
        await asyncio.to_thread(wish.leave, self._folder, wanted)
        if not self._by_service:
            self._child = await asyncio.create_subprocess_exec(
                *children.command("edged", "update", "run"),
                env=children.environment(**self._environment),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def ended(self) -> bool | None:
        """Whether the process that was started last has ended; None where systemd starts it, or before the first."""
        return None if self._child is None else self._child.returncode is not None

    async def leave_time(self) -> None:
        """For the updater to end."""
        if self._child is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), LEAVE_S)

    async def stop(self) -> None:
        """Ends the updater, which goes on another time where it was."""
        child = self._child
        if child is not None and child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            await child.wait()
