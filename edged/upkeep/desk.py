"""Answers `update.*`: says where updates stand, sends the updater on errands, holds, goes back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edged.errors import Busy, NotFound
from edged.protocol import messages as public
from edged.update import hold
from edged.update.owner_file import device_id, read_update_file
from edged.update.state import update_state
from edged.upkeep.errand import run_updater
from edged.upkeep.upkeep import Step, Upkeep
from edged.upkeep.waker import Waker

Tell = Callable[..., None]
_PATH = re.compile(r"(?<![\w:/.~-])/(?:[^\s/:'\"]+/)+")


class Desk:
    """`keeper_of(model)`: whose updates are meant; raises NotFound. One errand of the updater at a time."""

    def __init__(self, state: Path, waker: Waker, keeper_of: Callable[[str | None], Upkeep]) -> None:
        self._state, self._waker, self._keeper_of = state, waker, keeper_of
        self._out = False

    async def answer(self, request: public.AnyUpdate, tell: Tell) -> dict[str, Any]:
        """The fields of the `result`. Raises RequestError; OwnerError and OSError for what the log must say."""
        keeper = self._keeper_of(request.model)
        match request:
            case public.UpdateHold():
                await asyncio.to_thread(self._hold, request.reason if request.on else "")
                keeper.look()
            case public.UpdateRollback():
                return await self._roll_back(keeper, request.reason)
            case public.UpdateCheck():
                outcome = await self._errand(keeper, "check", tell)
                return await self._status(keeper) | outcome
            case public.UpdateApply():
                if request.again:
                    await keeper.forgive()
                outcome = await self._errand(keeper, "apply", tell)
                return await self._status(keeper) | outcome
            case _:
                pass
        return await self._status(keeper)

    async def _status(self, keeper: Upkeep) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            return update_state(self._state, keeper.slots.model, read_update_file(None).device_id or device_id())

        return dict(_shown({**await asyncio.to_thread(read), "takeover": asdict(keeper.step)}))

    async def _errand(self, keeper: Upkeep, action: Any, tell: Tell) -> dict[str, Any]:
        """Runs the updater; when it staged a version, waits until that one serves or failed. Says how it ended."""
        if self._out:
            raise Busy("the updater is out for somebody else; see update.status", retry_after_ms=5_000)
        self._out, before = True, keeper.step
        try:
            report = await run_updater(
                self._state / "update", self._waker, action, keeper.slots.model, lambda fields: tell(**_shown(fields))
            )
        finally:
            self._out = False
        if report.phase != "staged":
            return {"outcome": report.phase}

        def step(now: Step) -> None:
            tell(**_shown({"phase": now.phase, "version": now.version, "message": now.detail}))

        with keeper.listening(step):
            if keeper.step.version == report.version and keeper.step is not before:
                step(keeper.step)  # the keeper may have been quicker than we
            last = await keeper.taken(report.version, before)
        return {"outcome": "taken" if last.phase in ("watching", "committed") else last.phase, "reason": last.detail}

    async def _roll_back(self, keeper: Upkeep, reason: str) -> dict[str, Any]:
        left = keeper.slots.active
        if left is None:
            raise NotFound("the model that shipped is in use; there is nothing to go back from")
        active = await asyncio.shield(asyncio.ensure_future(keeper.roll_back(reason)))  # also if the client leaves
        return {"active": active, "left": left, "hold": await asyncio.to_thread(hold.held, self._state / "update")}

    def _hold(self, reason: str) -> None:
        if reason:
            hold.hold(self._state / "update", reason)
        else:
            hold.release(self._state / "update")


def _shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without full paths: those are for the log and the owner's command line."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return _PATH.sub("", value)
        if isinstance(value, Mapping):
            return {key: clean(inner) for key, inner in value.items()}
        return [clean(inner) for inner in value] if isinstance(value, list | tuple) else value

    return {key: clean(value) for key, value in fields.items()}
