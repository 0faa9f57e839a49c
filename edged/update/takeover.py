"""What follows staging: test a new version in an engine of its own, let it serve, watch it, and go back if it fails.

The daemon owns one `Takeover` for each model and lends it a `Host`, which starts engines and routes requests. Nothing
here knows how. Whatever fails, the old version serves on or serves again, and the new one is remembered as refused.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from edged.errors import EdgedError, ModelError
from edged.protocol.engine import NO_ROOM
from edged.store.durable import StoreError
from edged.store.journal import uncommitted
from edged.store.slots import Slots
from edged.update.bundle import Bundle, Golden
from edged.update.health import (
    Answer,
    Limits,
    Plan,
    Vitals,
    judge_answer,
    judge_memory,
    judge_speed,
    judge_watch,
    plan,
)
from edged.update.staged import check_staged

log = logging.getLogger(__name__)

WATCH_STEP_S = 1.0
SPEED_PROMPT = Golden(prompt="Count from one to one hundred:", max_tokens=32, answer="", same_share=0.0)


class Engine(Protocol):
    """One engine process with one model."""

    async def ask(self, golden: Golden) -> Answer:
        """One prompt at temperature 0, as a chat or raw. Raises EdgedError when it is not answered."""

    def memory_bytes(self) -> int | None:
        """Memory of its process that is not a mapped file; None when that is not known."""

    def deaths(self) -> int:
        """How often its process ended by itself since it was started, restarted by the host or not."""

    async def end(self) -> None:
        """Ends the process; nothing is asked of it any more."""


E = TypeVar("E", bound=Engine)


class Host(Protocol[E]):
    """The daemon's side. `serving()` is None while no model is in memory."""

    def serving(self) -> E | None: ...

    def free_bytes(self) -> int:
        """What the ledger would give a second model now."""

    async def start(self, folder: Path, limit_s: float) -> E:
        """A second engine, loaded and warm. Raises EdgedError when it cannot be loaded in time."""

    async def unload(self) -> None:
        """Lets running streams finish, holds new requests back, ends the serving engine."""

    async def adopt(self, engine: E, version: str) -> None:
        """New requests go to `engine`; the one before ends with its last stream."""

    async def restore(self, folder: Path | None) -> None:
        """The model in `folder` serves (None: the one that shipped); held requests go to it."""

    def vitals(self) -> Vitals:
        """Since the last `adopt` or, after a restart of the daemon, since its start."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """`taken`: `version` serves and is committed. Else `reason` says what it failed at."""

    version: str
    taken: bool
    reason: str = ""


class Takeover(Generic[E]):
    """`tell(phase, version, detail)`: testing, activating, watching, committed, refused, rolled_back, waiting.

    `held()`: why nothing may be activated now, or empty.
    """

    def __init__(
        self,
        slots: Slots,
        host: Host[E],
        limits: Limits,
        tell: Callable[[str, str, str], None] = lambda phase, version, detail: None,
        held: Callable[[], str] = lambda: "",
    ) -> None:
        self._slots, self._host, self._limits, self._tell, self._held = slots, host, limits, tell, held

    async def take(self, version: str) -> Outcome:
        """The whole way of one staged version. Raises OSError and StoreError only when the disk or the store fails."""
        self._tell("testing", version, "")
        try:
            bundle = await asyncio.to_thread(check_staged, self._slots, version)
        except ModelError as error:
            return await self._refuse(version, 0, f"{error.file} {error.reason}")
        way = plan(bundle.needs.memory_bytes, self._host.free_bytes(), self._host.serving() is not None)
        log.info("update test model=%s version=%s plan=%s", self._slots.model, version, way.name.lower())
        before = await self._measure_serving(bundle) if way is Plan.INSTEAD else []
        if way is Plan.INSTEAD:
            await self._host.unload()
        candidate: E | None = None
        try:
            candidate = await self._host.start(self._slots.path(version), self._limits.load_s)
            reason, old = await self._test(candidate, bundle, before)
        except (EdgedError, TimeoutError) as error:
            reason, old = str(error) or "took too long to answer a golden prompt", before
        except asyncio.CancelledError:
            if candidate is not None:
                await candidate.end()
            raise
        held = self._why_wait(way, reason)
        if reason or held or candidate is None:
            await self._leave(candidate, way)
            return self._wait(version, held) if held else await self._refuse(version, bundle.release, reason)
        self._tell("activating", version, "")
        try:
            await asyncio.to_thread(self._slots.activate, version, bundle.release)
        except (OSError, StoreError):
            if self._slots.active != version:
                await self._leave(candidate, way)
                raise
            log.exception("the disk failed after the change, which holds; model=%s version=%s", bundle.model, version)
        await self._host.adopt(candidate, version)
        return await self._watch(version, bundle.release, _median_tps(old))

    async def resume(self) -> Outcome | None:
        """After a restart of the daemon: goes on watching a version that had not proved itself yet."""
        pending = uncommitted(await asyncio.to_thread(self._slots.journal.read))
        if pending is None or pending.version != self._slots.active:
            return None
        return await self._watch(pending.version, pending.release, None)

    # ---- the steps

    async def _measure_serving(self, bundle: Bundle) -> list[Answer]:
        """How fast the old version is here, on the same prompts; what it cannot answer does not count."""
        serving, answers = self._host.serving(), []
        for golden in _prompts(bundle):
            if serving is not None:
                try:
                    answers.append(await asyncio.wait_for(serving.ask(golden), self._limits.answer_s))
                except (EdgedError, TimeoutError):
                    continue
        return answers

    async def _test(self, candidate: E, bundle: Bundle, before: list[Answer]) -> tuple[str, list[Answer]]:
        """What the candidate fails at, or nothing; and the old version's answers.

        With both in memory they are asked in turn, so that other work on the box slows both alike.
        """
        serving = self._host.serving() if not before else None
        new, old = [], list(before)
        for golden in _prompts(bundle):
            answer = await asyncio.wait_for(candidate.ask(golden), self._limits.answer_s)
            if wrong := judge_answer(golden, answer.text):
                return wrong, old
            new.append(answer)
            if serving is not None:
                try:
                    old.append(await asyncio.wait_for(serving.ask(golden), self._limits.answer_s))
                except (EdgedError, TimeoutError):
                    continue
        if candidate.deaths():
            return "its engine ended during the test", old
        reason = judge_speed(new, old, self._limits)
        return reason or judge_memory(candidate.memory_bytes(), bundle.needs.memory_bytes, self._limits), old

    async def _watch(self, version: str, release: int, old_tps: float | None) -> Outcome:
        """Until it proved itself or failed. Cancelled by the daemon's end, `resume` goes on."""
        self._tell("watching", version, "")
        while (reason := judge_watch(self._host.vitals(), old_tps, self._limits)) is None:
            if self._slots.active != version:
                return Outcome(version, False, "changed by hand")
            await asyncio.sleep(min(WATCH_STEP_S, self._limits.watch_s / 4))
        if not reason:
            await asyncio.to_thread(self._slots.commit, version)
            self._tell("committed", version, "")
            return Outcome(version, True)
        return await self.go_back(reason, release)

    async def go_back(self, reason: str, release: int = 0) -> Outcome:
        """Makes the previous version serve again, or the one that shipped. Raises StoreError when there is neither."""
        bad = self._slots.active or ""
        await asyncio.to_thread(self._slots.roll_back, reason, release)
        await self._host.restore(self._active_folder())
        self._tell("rolled_back", bad, reason)
        log.warning("update rolled back model=%s version=%s reason=%r", self._slots.model, bad, reason)
        return Outcome(bad, False, reason)

    async def _leave(self, candidate: E | None, way: Plan) -> None:
        """The candidate goes, and the old version serves as before."""
        if candidate is not None:
            await candidate.end()
        if way is Plan.INSTEAD:
            await self._host.restore(self._active_folder())

    def _why_wait(self, way: Plan, reason: str) -> str:
        """Held by hand, or memory that was free a moment ago went to somebody else: neither is a verdict."""
        if reason:
            return reason if way is Plan.BESIDE and NO_ROOM in reason else ""
        held = self._held()
        return f"held: {held}" if held else ""

    def _wait(self, version: str, why: str) -> Outcome:
        """It stays staged."""
        self._tell("waiting", version, why)
        return Outcome(version, False, why)

    async def _refuse(self, version: str, release: int, reason: str) -> Outcome:
        await asyncio.to_thread(self._slots.refuse, version, reason, release)
        self._tell("refused", version, reason)
        log.warning("update refused model=%s version=%s reason=%r", self._slots.model, version, reason)
        return Outcome(version, False, reason)

    def _active_folder(self) -> Path | None:
        active = self._slots.active
        return self._slots.path(active) if active is not None else None


def _prompts(bundle: Bundle) -> Sequence[Golden]:
    """The bundle's own; one that only measures speed where it has none."""
    return bundle.golden or (SPEED_PROMPT,)


def _median_tps(answers: Sequence[Answer]) -> float | None:
    return statistics.median(answer.decode_tps for answer in answers) if answers else None
