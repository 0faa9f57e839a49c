"""Lends one model's place in the pool of engines to a takeover. Owns nothing but the count of what it watches."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from edged.errors import RequestError, Unavailable
from edged.hardware.memory import process_rss
from edged.protocol import engine as wire
from edged.serving.engine_link import EngineLink, State
from edged.serving.engines import Engines
from edged.update.bundle import Golden
from edged.update.health import Answer, Vitals

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HostRules:
    """Running streams get `drain_s` before their model leaves; the version before may take `load_s` to come back."""

    drain_s: float
    load_s: float


class LinkEngine:
    """One engine of the pool, as a takeover sees it."""

    def __init__(self, engines: Engines, link: EngineLink) -> None:
        self._engines, self.link = engines, link

    async def ask(self, golden: Golden) -> Answer:
        """One golden prompt at temperature 0. Raises RequestError."""
        question = {"messages": [{"role": "user", "content": golden.prompt}]} if golden.chat else {}
        raw = {} if golden.chat else {"prompt": golden.prompt}
        op = "chat" if golden.chat else "generate"
        done = await self._engines.ask(self.link, op, **question, **raw, max_tokens=golden.max_tokens, temperature=0.0)
        assert isinstance(done, wire.Done)
        return Answer(done.text or "", done.usage["completion_tokens"], done.timings.get("decode_tps") or 0.0)

    def memory_bytes(self) -> int | None:
        memory = process_rss(self.link.pid) if self.link.pid else None
        return memory.anon_bytes if memory else None

    def deaths(self) -> int:
        return self.link.restarts

    async def end(self) -> None:
        await self._engines.discard(self.link)


@dataclass(slots=True)
class _Since:
    """What the serving link had counted when the watch began."""

    link: EngineLink
    at_s: float = field(default_factory=time.monotonic)
    answered: int = 0
    failed: int = 0
    deaths: int = 0


class PoolHost:
    """For the model `name`. `shipped` is its folder inside the package, if it ships; `rules()` are those of now."""

    def __init__(self, engines: Engines, name: str, shipped: Path | None, rules: Callable[[], HostRules]) -> None:
        self._engines, self._name, self.shipped, self._rules = engines, name, shipped, rules
        self._since: _Since | None = None

    @property
    def link(self) -> EngineLink:
        """The link that serves the model now. Raises NotFound when it is served no more."""
        return self._engines.serving(self._name)

    def serving(self) -> LinkEngine | None:
        link = self.link
        return LinkEngine(self._engines, link) if link.state is State.READY else None

    def free_bytes(self) -> int:
        return self._engines.free_bytes()

    async def start(self, folder: Path, limit_s: float) -> LinkEngine:
        link = await self._engines.open_candidate(self._name, folder, folder.name, limit_s)
        return LinkEngine(self._engines, link)

    async def unload(self) -> None:
        await self._engines.hold(self._name, self._rules().drain_s)

    async def adopt(self, engine: LinkEngine, version: str) -> None:
        self._engines.promote(engine.link)
        self._since = None

    async def restore(self, folder: Path | None) -> None:
        """Beside the one that serves if that can be, so that nobody waits; else in its place."""
        target = folder or self.shipped
        if target is None:
            raise Unavailable(f"model {self._name} has no version to go back to")
        self._since = None
        version = folder.name if folder is not None else ""
        if not self._engines.is_held(self._name) and await self._beside(target, version):
            return
        await self._engines.hold(self._name, self._rules().drain_s)
        self._engines.resume(self._name, target, version)

    def vitals(self) -> Vitals:
        link = self.link
        since = self._since
        if since is None or since.link is not link:
            tally = link.tally
            since = self._since = _Since(link, time.monotonic(), tally.answered, tally.failed, link.restarts)
        tally = link.tally
        return Vitals(
            seconds=time.monotonic() - since.at_s,
            requests=tally.answered + tally.failed - since.answered - since.failed,
            errors=tally.failed - since.failed,
            crashes=link.restarts - since.deaths,
            decode_tps=tally.decode_tps,
        )

    async def _beside(self, folder: Path, version: str) -> bool:
        try:
            candidate = await self._engines.open_candidate(self._name, folder, version, self._rules().load_s)
        except RequestError as error:
            log.warning(
                "model %s version %s cannot be loaded beside the one that serves: %s", self._name, version, error
            )
            return False
        self._engines.promote(candidate)
        return True
