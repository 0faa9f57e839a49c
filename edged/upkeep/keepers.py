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
from edged.upkeep.waker import Waker, is_service

log = logging.getLogger(__name__)

LOOK_S = 5.0  # for models that came into the pool


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
        rules: Callable[[], HostRules],
        limits: Callable[[], Limits],
        environment: dict[str, str],
    ) -> None:
        self._state, self._descriptor, self._engines = state, descriptor, engines
        self._rules, self._limits = rules, limits
        self._waker = Waker(state, environment, by_service=is_service(state))
        self._keepers: dict[str, tuple[Upkeep, asyncio.Task[None]]] = {}
        self._noticing = asyncio.create_task(self._notice())
        self.desk = Desk(state, self._waker, self.of)

    async def _notice(self) -> None:
        """Models come into the pool as clients ask for them; each installed one is kept from then on."""
        while True:
            for link in self._engines:
                if link.name not in self._keepers and self._is_installed(link.name, link.folder):
                    self._follow(link.name)
            await asyncio.sleep(LOOK_S)

    def _is_installed(self, name: str, folder: Path) -> bool:
        """Else it was named by its path."""
        return folder == embedded_folder() / name or folder.parent == self._state / "models" / name

    def _follow(self, name: str) -> None:
        shipped = embedded_folder() / name
        host = PoolHost(self._engines, name, shipped if shipped.is_dir() else None, self._rules)
        keeper = Upkeep(self._state, name, host, self._limits)
        self._keepers[name] = (keeper, asyncio.create_task(keeper.run()))

    def of(self, model: str | None) -> Upkeep:
        """The keeper of a model, of the default one for None. Raises NotFound, Unsupported."""
        link = self._engines.serving(model) if model else self._engines.default
        if link.name not in self._keepers and self._is_installed(link.name, link.folder):
            self._follow(link.name)
        if link.name in self._keepers:
            return self._keepers[link.name][0]
        raise Unsupported(f"model {link.name} is served from a folder of its own; updates are for installed models")

    def phases(self) -> dict[str, str]:
        """Where the takeover of each model's update stands, by model; `idle`: there is none."""
        return {name: keeper.step.phase for name, (keeper, _) in self._keepers.items()}

    async def stop(self) -> None:
        """No change begins any more; one that was begun is left as it stands, whole."""
        tasks = [self._noticing, *(task for _, task in self._keepers.values())]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for keeper, _ in self._keepers.values():
            keeper.end_in_order()
        await self._waker.stop()
        os.close(self._descriptor)
