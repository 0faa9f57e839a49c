"""Keeps one served model at the version that the store says, and the store at one that proved itself.

Owns the takeover of its model: nothing else activates, commits or rolls back while the daemon runs. What the updater
staged is tested, what somebody asks is done, and what changed on the disk by other hands is followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.errors import EdgedError
from edged.protocol.engine import NO_ROOM
from edged.serving.engine_link import EngineLink, State
from edged.store.durable import StoreError
from edged.store.journal import FILE as JOURNAL
from edged.store.journal import refused, uncommitted
from edged.store.slots import Slots
from edged.update import hold
from edged.update.health import Limits
from edged.update.staged import next_staged
from edged.update.starts import Starts
from edged.update.takeover import Takeover
from edged.upkeep.host import LinkEngine, PoolHost

log = logging.getLogger(__name__)

LOOK_S, IDLE_LOOK_S = 0.5, 5.0  # while something goes on, and while nothing does
RETRY_S, ROOM_RETRY_S = 60.0, 600.0  # after the disk failed, after memory was short
ENDED = frozenset({"committed", "refused", "rolled_back", "waiting"})


@dataclass(frozen=True, slots=True)
class Step:
    """Where a takeover stands: see Takeover.tell. `idle`: there is none."""

    phase: str = "idle"
    version: str = ""
    detail: str = ""


class Upkeep:
    """For the model that `host` lends."""

    def __init__(self, state: Path, model: str, host: PoolHost, limits: Callable[[], Limits]) -> None:
        self.slots = Slots(state, model)
        self.step = Step()
        self._folder = state / "update"
        self._host, self._limits = host, limits
        self._starts = Starts(state, self.slots)
        self._takeover = self._new_takeover()
        self._listeners: set[Callable[[Step], None]] = set()
        self._alone = asyncio.Lock()  # one change at a time
        self._work: asyncio.Task[Any] | None = None
        self._counted: tuple[EngineLink, int] | None = (
            None  # the daemon counted the first one before it chose a version
        )
        self._good: tuple[EngineLink, int] | None = None
        self._settled: tuple[object, ...] = ()
        self._look = asyncio.Event()
        self._not_before_s = 0.0

    async def run(self) -> None:
        """Until cancelled. A disk that fails is tried again later; the model serves on meanwhile."""
        while True:
            try:
                await self._mind_starts()
                seen = self._seen()
                if seen != self._settled and time.monotonic() >= self._not_before_s:
                    async with self._alone:
                        await self._interruptible(self._next_change())
                    is_short = self.step.phase == "waiting" and NO_ROOM in self.step.detail
                    self._settled = () if is_short else seen
                    self._not_before_s = time.monotonic() + ROOM_RETRY_S if is_short else 0.0
            except (OSError, EdgedError) as error:
                log.error("update put off for %.0f s model=%s: %s", RETRY_S, self.slots.model, error)
                self._tell("waiting", self.step.version, f"{error}; tried again later")
                self._not_before_s = time.monotonic() + RETRY_S
            except Exception:  # ours; the model serves on, and so does this loop
                log.exception("updates stumbled model=%s", self.slots.model)
                self._not_before_s = time.monotonic() + RETRY_S
            self._look.clear()
            is_calm = self._host_is_ready() and not self._listeners and self.step.phase in ("idle", *ENDED)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), IDLE_LOOK_S if is_calm else LOOK_S)

    def end_in_order(self) -> None:
        """The daemon was asked to stop: a start that has not come to an answer by now did not fail."""
        with contextlib.suppress(EdgedError):
            if self._host.link.state is State.LOADING:
                self._starts.forget()

    async def roll_back(self, reason: str) -> str | None:
        """The version before serves again; returns it, None for the one that shipped. Updates are held from now on.

        Raises StoreError when there is nothing to go back to, OSError when the disk fails.
        """
        bad = self.slots.active
        if bad is None:
            raise StoreError(f"{self.slots.model}: the model that shipped is in use; there is nothing to go back from")
        await asyncio.to_thread(hold.hold, self._folder, f"rolled back from {bad}: {reason}")
        if self._work is not None and self.step.phase in ("testing", "watching"):
            self._work.cancel()
        async with self._alone:
            if self.slots.active == bad:
                release = await asyncio.to_thread(self.slots.release_of, bad)
                await self._takeover.go_back(reason, release)
            return self.slots.active

    def look(self) -> None:
        """Something on the disk was changed just now."""
        self._look.set()

    async def forgive(self) -> None:
        """Versions that failed here may be tried again. Raises OSError."""
        for version in refused(await asyncio.to_thread(self.slots.journal.read)):
            await asyncio.to_thread(self.slots.forgive, version)

    async def taken(self, version: str, before: Step) -> Step:
        """Waits until a staged version serves, or does not come to it: not while another has to prove itself first.

        `before`: the step that was known when it was asked for, which may tell of an earlier try of the same version.
        """
        changed = asyncio.Event()
        with self.listening(lambda _: changed.set()):
            while True:
                step, active = self.step, self.slots.active
                has_ended = step.phase in ENDED and (step is not before or step.phase == "waiting")
                if step.version == version and (has_ended or (active == version and step.phase == "watching")):
                    return step
                if step.phase == "watching" and active == step.version:
                    why = f"{active} serves and is being watched; {version} is tested after that"
                    return Step("waiting", version, why)
                changed.clear()
                await changed.wait()

    @contextlib.contextmanager
    def listening(self, listener: Callable[[Step], None]) -> Iterator[None]:
        """`listener` hears of each step."""
        self._listeners.add(listener)
        self._look.set()
        try:
            yield
        finally:
            self._listeners.discard(listener)

    # ---- what there is to do

    async def _next_change(self) -> None:
        """One change at most, the most urgent first."""
        link = self._host.link
        if link.state in (State.LOADING, State.LOST):
            return
        active = await asyncio.to_thread(lambda: self.slots.active)
        folder = self.slots.path(active) if active is not None else self._host.shipped
        if folder is not None and link.folder != folder and link.state is not State.UNLOADED:  # else at its next load
            log.info("model follows the store model=%s version=%s", self.slots.model, active or "shipped")
            await self._host.restore(self.slots.path(active) if active is not None else None)
            return
        entries = await asyncio.to_thread(self.slots.journal.read)
        pending = uncommitted(entries)
        if pending is not None and pending.version == active and pending.release and link.state is State.READY:
            await self._takeover.resume()
        elif not hold.held(self._folder):
            version = await asyncio.to_thread(next_staged, self.slots)
            if version is not None:
                self._takeover = self._new_takeover()
                await self._takeover.take(version)

    async def _mind_starts(self) -> None:
        """Three starts in a row that did not end with an answer: the version before is used."""
        link = self._host.link
        now = (link, link.starts)
        if self._counted is None or self._counted[0] is not link:
            self._counted = (link, 1)
        is_full = link.state is State.FAILED and NO_ROOM in link.reason  # not the version's fault
        if (link.state is State.READY or is_full) and self._good != now:
            await asyncio.to_thread(self._starts.forget)
            self._good = self._counted = now
        elif link.state is not State.READY and not is_full and link.starts > self._counted[1]:
            self._counted = now
            reason = await asyncio.to_thread(self._starts.begin)
            if reason is not None:
                self._tell("rolled_back", "", reason)

    def _seen(self) -> tuple[object, ...]:
        """What decides whether there is anything to do; cheap, for every look."""
        link = self._host.link
        files = (self.slots.folder, self.slots.folder / JOURNAL, self._folder / hold.FILE)
        return (link, link.state, self.slots.active, *map(_changed_ns, files))

    # ---- how

    async def _interruptible(self, work: Any) -> None:
        """A rollback by hand ends it; the end of the daemon ends both."""
        self._work = asyncio.ensure_future(work)
        try:
            await asyncio.wait({self._work})
        except asyncio.CancelledError:
            self._work.cancel()
            raise
        finally:
            done, self._work = self._work, None
        if not done.cancelled():
            done.result()

    def _host_is_ready(self) -> bool:
        try:
            return self._host.link.state is State.READY
        except EdgedError:
            return False

    def _new_takeover(self) -> Takeover[LinkEngine]:
        return Takeover(self.slots, self._host, self._limits(), self._tell, lambda: hold.held(self._folder))

    def _tell(self, phase: str, version: str, detail: str) -> None:
        self.step = Step(phase, version, detail)
        log.info("update phase=%s model=%s version=%s detail=%r", phase, self.slots.model, version, detail)
        for listener in list(self._listeners):
            listener(self.step)


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
