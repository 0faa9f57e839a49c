"""All of updates that the daemon has: its claim on the state directory, one keeper for each model, and who answers.

Owns the keepers' tasks. A daemon without the claim serves what it finds and changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

from edged.errors import Unsupported
from edged.protocol.shared_ledger import SharedLedger
from edged.serving.engines import Engines
from edged.store.digests import is_name
from edged.store.durable import StoreError
from edged.store.models import embedded_folder
from edged.store.slots import Slots
from edged.update.health import Limits
from edged.update.starts import Starts
from edged.upkeep.claim import claim
from edged.upkeep.desk import Desk
from edged.upkeep.host import HostRules, PoolHost
from edged.upkeep.upkeep import Upkeep
from edged.upkeep.waker import Waker

log = logging.getLogger(__name__)


def before_the_start(state: Path, endpoint: str, model: str) -> int | None:
    """Before the version of `model` is chosen: puts right what a cut left behind, and goes back to the version before
    when three starts did not end with an answer. Returns the claim, None when another daemon has it or the disk failed.
    """
    try:
        descriptor = claim(state, endpoint)
        if descriptor is None:
            log.warning("another daemon keeps the models of this state directory; this one takes no updates")
            return None
        if is_name(model):
            slots = Slots(state, model)
            slots.recover()
            if reason := Starts(state, slots).begin():
                log.error("update rolled back model=%s reason=%r", model, reason)
        return descriptor
    except (OSError, StoreError) as error:
        log.error("no updates: the state directory cannot be written: %s", error)
        return None


class Keepers:
    """`descriptor` is the claim, released at the end. `rules()` and `limits()` are those of now."""

    def __init__(
        self,
        state: Path,
        descriptor: int,
        engines: Engines,
        ledger: SharedLedger,
        rules: Callable[[], HostRules],
        limits: Callable[[], Limits],
        environment: dict[str, str],
    ) -> None:
        self._state, self._descriptor, self._engines, self._ledger = state, descriptor, engines, ledger
        self._rules, self._limits = rules, limits
        self._waker = Waker(state, environment)
        self._keepers: dict[str, tuple[Upkeep, asyncio.Task[None]]] = {}
        self.desk = Desk(state, self._waker, self.of)

    def follow(self, name: str) -> None:
        """Keep a model that is served by its name."""
        shipped = embedded_folder() / name
        host = PoolHost(self._engines, name, shipped if shipped.is_dir() else None, self._ledger, self._rules)
        keeper = Upkeep(self._state, name, host, self._limits)
        self._keepers[name] = (keeper, asyncio.create_task(keeper.run()))

    def of(self, model: str | None) -> Upkeep:
        """The keeper of a model, of the default one for None. Raises NotFound, Unsupported."""
        name = model or self._engines.default.name
        if name in self._keepers:
            return self._keepers[name][0]
        self._engines.check(model)
        raise Unsupported(f"model {name} is served from a folder of its own; updates are for installed models")

    def phases(self) -> dict[str, str]:
        """Where the takeover of each model's update stands, by model; `idle`: there is none."""
        return {name: keeper.step.phase for name, (keeper, _) in self._keepers.items()}

    async def stop(self) -> None:
        """No change begins any more; one that was begun is left as it stands, whole."""
        for _, task in self._keepers.values():
            task.cancel()
        for _, task in self._keepers.values():
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._waker.stop()
        os.close(self._descriptor)
