"""The pool of engines with real processes: another version tested beside the serving one, switched to, and back."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import zmq

from edged.config import Settings
from edged.daemon import engine_options
from edged.errors import EngineLost, NotFound, Unavailable
from edged.hardware.budget import Reserve
from edged.protocol import engine as wire
from edged.protocol.messages import parse_request
from edged.protocol.shared_ledger import SharedLedger
from edged.serving.engine_link import EngineLink, State
from edged.serving.engines import Engines
from edged.serving.stuck import HangRule
from edged.shelf import Shelf
from edged.store.models import FoundModel
from tests.integration.raw import PATIENCE_S, nano_folder, running

LOAD_S = PATIENCE_S
LAST = (wire.Done, wire.Failed, wire.Result)
LONG = {"prompt": "again and again", "max_tokens": 200}
SHORT = {"prompt": "one two three", "max_tokens": 3}


class SmallBox(Shelf):
    """As if the box had only `total_bytes` for all models; `all` that is on its disk is nano under any name."""

    total_bytes: int | None = None

    def __init__(self, state: Path, ledger: SharedLedger, folder: Path) -> None:
        super().__init__(state, ledger, Reserve(2**26, 0.0))
        self._shared, self._folder = ledger, folder

    def find(self, name: str) -> tuple[str, Path, str] | None:
        return (name, self._folder, "") if name in ("second", "third") else None

    def free_bytes(self) -> int:
        if self.total_bytes is None:
            return super().free_bytes()
        return self.total_bytes - sum(row.promised_bytes for row in self._shared.rows())


class Pool:
    """Engines without a router: what they say to clients is kept by request."""

    def __init__(self, context: zmq.Context[Any], state: Path) -> None:
        self._context, self._state = context, state
        self.kv_memory_bytes = 2**25
        self.ledger = SharedLedger.create()
        self.shelf = SmallBox(state, self.ledger, nano_folder())
        self.engines = Engines(self._open, self._message, self._lost, self.shelf)
        self.said: dict[int, list[wire.ToFront]] = {}
        self.ended: list[int] = []
        self.lost: list[tuple[str, set[int]]] = []
        self._rid = 0

    def _open(self, name: str, folder: Path, version: str, **callbacks: Any) -> EngineLink:
        settings = Settings.model_validate(
            {
                "state_dir": str(self._state),
                "provider": "cpu",
                "threads": 1,
                "ignore_eos": True,
                "kv_memory_bytes": self.kv_memory_bytes,
                "memory_reserve_bytes": 2**26,
                "memory_reserve_fraction": 0.0,
                "log_level": "error",
            }
        )
        options = engine_options(settings, FoundModel(name, folder, ""))
        hang = HangRule(3.0, 10.0)
        own = {"version": version, "ledger": self.ledger}
        return EngineLink(self._context, name, options, hang, idle_s=0.0, beside=None, **own, **callbacks)

    def _message(self, message: wire.ToFront) -> None:
        if rid := getattr(message, "rid", 0):
            if isinstance(message, LAST):
                self.ended.append(rid)
            self.said.setdefault(rid, []).append(message)

    def _lost(self, link: EngineLink, _suspect: int, _why: str) -> None:
        self.lost.append((link.version, set(link.live)))

    def send(self, model: str | None = None, **fields: Any) -> int:
        """A client's request; its number."""
        self._rid += 1
        body = parse_request({"v": 1, "id": 1, "op": "generate", **fields}).model_dump()
        start = wire.Start(self._rid, os.getuid(), b"c", "generate", body, time.monotonic(), None, stream=True)
        self.engines.submit(model, start)
        return self._rid

    async def last(self, rid: int) -> wire.ToFront:
        """The last word on a request."""
        await until(lambda: self._last(rid))
        found = self._last(rid)
        assert found is not None
        return found

    def _last(self, rid: int) -> wire.ToFront | None:
        return next((message for message in self.said.get(rid, []) if isinstance(message, LAST)), None)

    async def begun(self, rid: int) -> None:
        """Until its first token came."""
        await until(lambda: isinstance(self._newest(rid), wire.Delta | wire.Failed))
        assert isinstance(self._newest(rid), wire.Delta), self._newest(rid)

    def _newest(self, rid: int) -> wire.ToFront | None:
        return self.said.get(rid, [None])[-1]


async def until(true: Callable[[], Any]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 (what is waited for is another process's)
            await asyncio.sleep(0.005)


@pytest.fixture
async def pool(tmp_path: Path, nano: Path) -> AsyncIterator[Pool]:
    """nano serves, as version 1."""
    context = zmq.Context()
    made = Pool(context, tmp_path / "state")
    await made.engines.serve("nano", nano, "1").settled()
    yield made
    await made.engines.stop()
    context.term()


async def test_a_candidate_is_asked_in_private_and_then_serves_while_old_streams_finish(pool: Pool, nano: Path) -> None:
    old = pool.engines.serving("nano")
    candidate = await pool.engines.open_candidate("nano", nano, "2", LOAD_S)
    assert pool.engines.candidates == [candidate]
    answer = await pool.engines.ask(candidate, "generate", **SHORT)
    assert isinstance(answer, wire.Done)
    assert answer.usage["completion_tokens"] == 3
    assert pool.said == {}  # no client hears of it
    stream = pool.send(**LONG)
    await pool.begun(stream)
    pool.engines.promote(candidate)
    assert pool.engines.candidates == []
    assert (pool.engines.serving("nano"), pool.engines.default.version) == (candidate, "2")
    later = pool.send(**SHORT)
    assert later in candidate.live
    assert isinstance(await pool.last(later), wire.Done)
    assert old.state is State.READY  # it still has its stream
    done = await pool.last(stream)
    assert isinstance(done, wire.Done)
    assert done.usage["completion_tokens"] == LONG["max_tokens"]
    await until(lambda: old.pid is None)
    assert old.state is State.STOPPED
    assert pool.lost == []


async def test_where_both_do_not_fit_requests_wait_for_the_new_engine_or_for_the_old_one_again(
    pool: Pool, nano: Path
) -> None:
    old = pool.engines.serving("nano")
    pid = old.pid
    stream = pool.send(**LONG)
    await pool.begun(stream)
    held = asyncio.create_task(pool.engines.hold("nano", drain_s=PATIENCE_S))
    await asyncio.sleep(0)
    waiting, given_up = pool.send(**SHORT), pool.send(**SHORT)
    assert pool.engines.waits(waiting)
    assert pool.engines.stop_request(given_up, "cancelled")
    await held
    assert isinstance(await pool.last(stream), wire.Done)  # the running one finished first
    assert pid is not None
    assert not running(pid)
    candidate = await pool.engines.open_candidate("nano", nano, "2", LOAD_S)
    assert pool.engines.waits(waiting)
    pool.engines.promote(candidate)
    assert isinstance(await pool.last(waiting), wire.Done)
    assert given_up not in pool.said

    await pool.engines.hold("nano", drain_s=PATIENCE_S)
    waiting = pool.send(**SHORT)
    assert pool.engines.resume("nano", nano, "1").version == "1"
    assert isinstance(await pool.last(waiting), wire.Done)


async def test_a_drain_that_takes_too_long_ends_its_streams(pool: Pool) -> None:
    stream = pool.send(prompt="to the end", max_tokens=3000)
    await pool.begun(stream)
    await pool.engines.hold("nano", drain_s=0.05)
    failed = await pool.last(stream)
    assert isinstance(failed, wire.Failed)
    assert failed.code == "unavailable"
    pool.engines.resume("nano")
    assert isinstance(await pool.last(pool.send(**SHORT)), wire.Done)


async def test_a_candidate_that_cannot_be_loaded_leaves_nothing_behind(pool: Pool, nano: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(nano, broken)
    (broken / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(Unavailable, match="cannot be loaded"):
        await pool.engines.open_candidate("nano", broken, "2", LOAD_S)
    with pytest.raises(Unavailable, match="not loaded within"):
        await pool.engines.open_candidate("nano", nano, "2", 0.01)
    assert pool.engines.candidates == []
    assert isinstance(await pool.last(pool.send(**SHORT)), wire.Done)


async def test_each_name_has_its_own_engine_and_one_death_concerns_no_other(pool: Pool, nano: Path) -> None:
    await pool.engines.serve("second", nano).settled()
    assert [link.name for link in pool.engines] == ["nano", "second"]
    with pytest.raises(NotFound, match="nano, second"):
        pool.engines.check("fourth")
    mine, other = pool.send("second", **LONG), pool.send(**LONG)
    private = asyncio.create_task(_outcome(pool.engines.ask(pool.engines.serving("second"), "generate", **LONG)))
    await pool.begun(mine)
    await pool.begun(other)
    pid = pool.engines.serving("second").pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert isinstance(await private, EngineLost)
    (lost,) = pool.lost
    assert mine in lost[1]
    assert other not in lost[1]
    assert isinstance(await pool.last(other), wire.Done)
    assert isinstance(await pool.last(pool.send("second", **SHORT)), wire.Done)


async def _outcome(asked: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await asked
    except EngineLost as error:
        return error


async def test_two_engines_never_book_more_than_there_is_and_neither_starves(pool: Pool, nano: Path) -> None:
    """The ceiling of KV memory is for all models together; one conversation takes more than half."""
    ceiling_bytes = pool.kv_memory_bytes = 4 * 2**20
    await pool.engines.hold("nano", 0)
    await pool.engines.resume("nano").settled()
    await pool.engines.serve("second", nano).settled()
    per_token = pool.engines.default.info["kv_bytes_per_token"]
    ceiling_tokens = ceiling_bytes // per_token
    most = 0

    def look() -> int:
        nonlocal most
        booked = sum(row.kv_bytes for row in pool.ledger.rows())
        most = max(most, booked)
        return booked

    long = {"prompt": "both want it", "max_tokens": ceiling_tokens * 5 // 8}
    requests = [pool.send("nano", **long)]
    await pool.begun(requests[0])  # two processes may read in either order what is sent to both at once
    requests += [pool.send(name, **long) for name in ("second", "nano", "second")]
    answers = [asyncio.create_task(pool.last(rid)) for rid in requests]
    while not all(answer.done() for answer in answers):
        look()
        await asyncio.sleep(0.001)
    assert pool.ended == requests  # who came first is served first, whatever the model
    for answer in answers:
        done = answer.result()
        assert isinstance(done, wire.Done), done
        assert done.usage["completion_tokens"] == long["max_tokens"]
    assert ceiling_bytes // 2 < most <= ceiling_bytes


async def test_a_model_makes_room_in_memory_idle_kv_first_then_the_model_used_least_recently(pool: Pool) -> None:
    needed_bytes = pool.shelf.needed_bytes(nano_folder())
    assert isinstance(await pool.last(pool.send(prompt="kept", max_tokens=600)), wire.Done)
    await until(lambda: pool.engines.default.idle_kv_bytes)
    idle_bytes = pool.engines.default.idle_kv_bytes
    pool.shelf.total_bytes = pool.engines.default.promised_bytes + needed_bytes - idle_bytes // 2
    second = pool.send("second", **SHORT)  # fits when the first gives back what it keeps
    assert isinstance(await pool.last(second), wire.Done)
    assert [link.state for link in pool.engines] == [State.READY] * 2
    assert pool.engines.default.promised_bytes < pool.shelf.total_bytes - pool.engines.serving("second").promised_bytes

    pool.shelf.total_bytes = 2 * max(link.promised_bytes for link in pool.engines) + needed_bytes // 2
    assert isinstance(await pool.last(pool.send(**SHORT)), wire.Done)
    assert isinstance(await pool.last(pool.send("third", **SHORT)), wire.Done)
    states = {link.name: link.state for link in pool.engines}
    assert states == {"nano": State.READY, "second": State.UNLOADED, "third": State.READY}
