"""A host of real engine processes for takeovers, without a router: what the daemon does, in short."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path
from typing import Any

import zmq

from edged.config import Settings
from edged.daemon import engine_options
from edged.errors import Unavailable
from edged.protocol import engine as wire
from edged.protocol.messages import parse_request
from edged.serving.engine_link import EngineLink, State
from edged.serving.stuck import HangRule
from edged.store.models import FoundModel
from edged.update.bundle import Golden
from edged.update.health import Answer, Vitals


class RealEngine:
    """One `python -m edged.engine.worker`, asked one prompt at a time."""

    def __init__(self, context: zmq.Context[Any], folder: Path, state: Path) -> None:
        settings = Settings.model_validate({"state_dir": str(state), "ignore_eos": True, "log_level": "error"})
        options = engine_options(settings, FoundModel("nano", folder, "store"))
        self._rids, self._waiting = itertools.count(1), dict[int, asyncio.Future[wire.Done]]()
        self.folder, self.crashes = folder, 0
        self.link = EngineLink(
            context,
            "nano",
            options,
            HangRule(3.0, 10.0),
            idle_s=0.0,
            beside=None,
            on_message=self._message,
            on_lost=self._lost,
        )

    async def load(self, limit_s: float) -> None:
        self.link.start()
        async with asyncio.timeout(limit_s):
            while self.link.state not in (State.READY, State.FAILED):
                self.link.changed.clear()
                await self.link.changed.wait()
        if self.link.state is State.FAILED:
            raise Unavailable(self.link.reason)

    async def ask(self, golden: Golden) -> Answer:
        rid = next(self._rids)
        question = (
            {"op": "chat", "messages": [{"role": "user", "content": golden.prompt}]}
            if golden.chat
            else {"op": "generate", "prompt": golden.prompt}
        )
        body = {
            "v": 1,
            "id": rid,
            **question,
            "max_tokens": golden.max_tokens,
            "temperature": 0.0,
        }
        body = parse_request(body).model_dump()
        done = self._waiting[rid] = asyncio.get_running_loop().create_future()
        self.link.submit(
            wire.Start(rid, os.getuid(), b"golden", question["op"], body, time.monotonic(), None, stream=False)
        )
        said = await done
        return Answer(said.text or "", said.usage["completion_tokens"], said.timings.get("decode_tps", 0.0))

    def memory_bytes(self) -> int | None:
        status = Path(f"/proc/{self.link.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon"))

    def deaths(self) -> int:
        return self.crashes

    async def end(self) -> None:
        await self.link.stop()

    def _message(self, message: Any) -> None:
        if isinstance(message, wire.Done | wire.Failed) and message.rid in self._waiting:
            waiting = self._waiting.pop(message.rid)
            if isinstance(message, wire.Done):
                waiting.set_result(message)
            else:
                waiting.set_exception(Unavailable(message.message))

    def _lost(self, rid: int, why: str) -> None:
        self.crashes += 1
        for waiting in self._waiting.values():
            waiting.set_exception(Unavailable(f"the engine ended ({why})"))
        self._waiting.clear()


class RealHost:
    """`room_bytes`: what a second model may take. `trouble` spoils the vitals of the watch."""

    def __init__(self, state: Path, shipped: Path) -> None:
        self._context, self._state, self._shipped = zmq.Context(), state, shipped
        self.engine: RealEngine | None = None
        self.room_bytes = 2**40
        self.trouble: Vitals | None = None
        self.unloads = 0
        self.started_s = time.monotonic()

    def serving(self) -> RealEngine | None:
        return self.engine

    def free_bytes(self) -> int:
        return self.room_bytes

    async def start(self, folder: Path, limit_s: float) -> RealEngine:
        engine = RealEngine(self._context, folder, self._state)
        try:
            await engine.load(limit_s)
        except BaseException:
            await engine.end()
            raise
        return engine

    async def unload(self) -> None:
        self.unloads += 1
        if self.engine is not None:
            await self.engine.end()
            self.engine = None

    async def adopt(self, engine: RealEngine, version: str) -> None:
        old, self.engine = self.engine, engine
        self.started_s = time.monotonic()
        if old is not None:
            await old.end()

    async def restore(self, folder: Path | None) -> None:
        await self.unload()
        self.engine = await self.start(folder or self._shipped, 60)

    def vitals(self) -> Vitals:
        if self.trouble is not None:
            return self.trouble
        return Vitals(time.monotonic() - self.started_s, 100, 0, self.engine.crashes if self.engine else 0, None)

    async def close(self) -> None:
        if self.engine is not None:
            await self.engine.end()
        self._context.term()
