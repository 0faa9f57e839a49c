"""Brings models into memory, one after the other, and unloads others for them where it must. Owns the order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edged.errors import ModelError, Unavailable
from edged.serving.engine_link import EngineLink, State
from edged.serving.make_room import Refuse, Resident, make_room

log = logging.getLogger(__name__)

GIVE_BACK_S = 3.0  # engines look about once a second
LOOK_S = 0.1


class Shelf(Protocol):
    """The daemon's view of disk and memory."""

    def find(self, name: str) -> tuple[str, Path, str] | None:
        """The installed model of that name or other name: its own name, folder, and version in the store or ""."""

    def names(self) -> list[str]:
        """Every installed model."""

    def needed_bytes(self, folder: Path) -> int:
        """What loading it takes, a small context included. Reads the disk. Raises ModelError."""

    def free_bytes(self) -> int:
        """What another model could have now: free, not reserved, not promised to an engine."""

    def ask_back(self, needed_bytes: int) -> None:
        """Have the engines give back idle KV, and book no more, for a model that needs so much; 0: no longer."""


@dataclass(frozen=True, slots=True)
class LoadPolicy:
    """The owner's settings: how many models may be in memory, whether a request may load one, and unload others."""

    most: int = 4
    for_request: bool = True
    evict: bool = True


class Loader:
    """`links()` are those that serve. One load at a time, so that each is judged by what memory really is left."""

    def __init__(self, shelf: Shelf, policy: LoadPolicy, links: Callable[[], Sequence[EngineLink]]) -> None:
        self.shelf, self.policy, self._links = shelf, policy, links
        self._turn = asyncio.Lock()

    async def bring(self, link: EngineLink, started: Callable[[], None], *, may_evict: bool) -> None:
        """Load a model that is not in memory; `started` is called when its engine is on its way, and holds requests.

        Returns when it is ready or has failed. Raises Busy or Unavailable when there is no room for it.
        """
        async with self._turn:
            await link.gone()
            try:
                needed_bytes = await asyncio.to_thread(self.shelf.needed_bytes, link.folder)
            except ModelError as error:
                why = f"{error.file}: {error.reason}" if error.file else error.reason
                raise Unavailable(f"model {link.name} cannot be loaded: {why}", retry_after_ms=60_000) from error
            await self._make_room(link, needed_bytes, may_evict=may_evict)
            link.load()
            started()
            await link.settled()

    async def _make_room(self, link: EngineLink, needed_bytes: int, *, may_evict: bool) -> None:
        others = {other.name: other for other in self._links() if other is not link and other.pid is not None}
        residents = [
            Resident(other.name, other.promised_bytes, other.used_s, bool(other.live) or other.state is State.LOADING)
            for other in others.values()
        ]
        free_bytes = await self._free_bytes(needed_bytes, sum(other.idle_kv_bytes for other in others.values()))
        outcome = make_room(link.name, needed_bytes, free_bytes, residents, most=self.policy.most, may_evict=may_evict)
        if isinstance(outcome, Refuse):
            raise outcome.error
        for name in outcome.evict:
            log.warning("model unloaded model=%s for=%s", name, link.name)
            others[name].unload(f"{link.name} was needed; a request loads it again")
        for name in outcome.evict:
            await others[name].gone()

    async def _free_bytes(self, needed_bytes: int, idle_kv_bytes: int) -> int:
        """What is free, once idle KV was given back where that alone makes the room: it is cheaper than a model."""
        free_bytes = self.shelf.free_bytes()
        if not free_bytes < needed_bytes <= free_bytes + idle_kv_bytes:
            return free_bytes
        self.shelf.ask_back(needed_bytes)
        try:
            for _ in range(int(GIVE_BACK_S / LOOK_S)):
                await asyncio.sleep(LOOK_S)
                free_bytes = self.shelf.free_bytes()
                if needed_bytes <= free_bytes:
                    break
        finally:
            self.shelf.ask_back(0)
        return free_bytes
