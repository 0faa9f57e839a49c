"""The front's end of one engine: keeps a process running for one model, passes messages, notices death and hangs.

Owns the engine process and its channel. States: loading → ready → (lost → loading)…; failed while the model
cannot be loaded (tried again with back-off); unloaded when nobody needed it for a while (a request brings it back).
What a message means to a client is the router's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from edged.errors import Busy, Unavailable
from edged.protocol import engine as wire
from edged.protocol.pulse import NO_REQUEST, Beat
from edged.protocol.shared_ledger import Row, SharedLedger
from edged.serving.engine_channel import EngineChannel
from edged.serving.engine_process import EngineProcess, Exit
from edged.serving.recovery import Recovery
from edged.serving.stuck import HangRule, Verdict, Watch
from edged.serving.tally import Tally

log = logging.getLogger(__name__)

WATCH_S = 0.25
IDLE_WATCH_S = 1.0  # nobody waits for this engine
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_LOST_S = 2.0
MAX_BACKOFF_FAILED_S = 60.0
STEADY_S = 30.0  # an engine that served this long starts the back-off anew
BLAMED_AFTER = 3  # early ends in a row; one or two may be the doing of an input, which is quarantined then
GOODBYE_S = 5.0
END_ALLOWED_S = 30.0  # a killed process gives its memory back first; one that waits for a device may never end
RESTART_ALLOWED_S = 30.0  # beyond the back-off
WATCH_ALLOWED_S = 30.0


class State(enum.Enum):
    LOADING = "loading"
    READY = "ready"
    LOST = "lost"
    FAILED = "failed"
    UNLOADED = "unloaded"
    STOPPED = "stopped"


class EngineLink:
    """`on_message(message)` for each engine message; `on_lost(suspect_rid, why)` when an engine process ended, while
    `live` still has what it was asked; `on_change()` at each change of state."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        name: str,
        options: dict[str, Any],
        hang: HangRule,
        *,
        idle_s: float,
        beside: Path | None,
        on_message: Callable[[wire.ToFront], None],
        on_lost: Callable[[int, str], None],
        on_change: Callable[[], None] = lambda: None,
        version: str = "",
        ledger: SharedLedger | None = None,
    ) -> None:
        self.name, self.version = name, version
        self.state = State.UNLOADED
        self.reason = "not loaded yet; a request loads it"
        self.info: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self.restarts = 0
        self.last_end = ""
        self._options = options
        self._channel = EngineChannel(context, beside, self._heard)
        self._stuck = Watch(hang, float(options["load_timeout_s"]), WATCH_S / 2)
        self._on_message, self._on_lost, self._on_change = on_message, on_lost, on_change
        self._ledger, self._row = ledger, -1
        self._provider = ""
        self._early_ends = 0  # in a row, of engines that had not served for STEADY_S
        self.idle_s = idle_s
        self.used_s = 0.0
        self._process: EngineProcess | None = None
        self.held: dict[int, wire.Start] = {}  # not handed to the engine yet
        self.live: set[int] = set()  # submitted and not answered, held ones included
        self._drained = asyncio.Event()
        self.tally = Tally()
        self.stays = False  # not unloaded, however idle: it is being tested
        self._backoff_s = FIRST_BACKOFF_S
        self._ready_s = 0.0
        self._why_killed = ""
        self._recovery = Recovery(time.monotonic)
        self._timers: list[asyncio.TimerHandle] = []
        self.changed = asyncio.Event()  # set at each change of state

    # ---- what the router calls

    def start(self) -> None:
        """Start the engine; returns at once."""
        self._spawn()
        self._watch()

    def load(self) -> None:
        """Start an engine that is not in memory; its process before must be gone. Returns at once."""
        if not self.starts:
            self.start()
        elif self.state is State.UNLOADED and self._process is None:
            self._spawn()

    def unload(self, reason: str) -> None:
        """Give the model's memory back, until `load` or a request; nothing may be live. `gone` waits for it."""
        assert not self.live, "requests would be lost"
        if self.state is State.READY:
            self._ask_to_leave()
        elif self._process is not None:
            self._process.kill()
        self._recovery.kept()
        self._set(State.UNLOADED, reason)

    def submit(self, start: wire.Start) -> None:
        """Hand a request to the engine, or hold it while one is loading. Raises Unavailable or Busy."""
        self.used_s = time.monotonic()
        if self.state is State.READY:
            self._channel.send(start)
        elif self.state in (State.LOADING, State.LOST):
            self.held[start.rid] = start
        elif self.state is State.UNLOADED:
            self.held[start.rid] = start
            if self._process is None:  # else its end, which is on its way, starts the next one
                self._spawn()
        else:
            raise self.unavailable()
        self.live.add(start.rid)

    def stop_request(self, rid: int, reason: str) -> bool:
        """Ask the engine to end a request; True when it had not reached the engine and the caller must end it."""
        if self.held.pop(rid, None) is not None:
            self._over(rid)
            return True
        if reason == "gone":  # the engine says nothing more of it
            self._over(rid)
        if self.state is State.READY:
            with contextlib.suppress(Busy):  # it does not read: nobody waits for this request's words any more
                self._channel.send(wire.Stop(rid, reason))
        return False

    def unavailable(self) -> Unavailable:
        """The error that tells a client why this model does not answer."""
        if self.state is State.FAILED:
            return Unavailable(f"model {self.name} cannot be loaded: {self.reason}", retry_after_ms=30_000)
        return Unavailable(f"model {self.name} is {self.state.value}: {self.reason}", retry_after_ms=1000)

    def release_held(self) -> dict[int, wire.Start]:
        """Take away what the engine does not have yet; the caller sees to it from now on."""
        held, self.held = self.held, {}
        for rid in held:
            self._over(rid)
        return held

    async def settled(self) -> None:
        """Return when the model is ready, cannot be loaded, or shall not be."""
        while self.state in (State.LOADING, State.LOST):
            self.changed.clear()
            await self.changed.wait()

    async def drained(self) -> None:
        """Return when no request is live."""
        while self.live:
            self._drained.clear()
            await self._drained.wait()

    @property
    def folder(self) -> Path:
        """Of the model."""
        return Path(self._options["folder"])

    @property
    def starts(self) -> int:
        """How many engine processes were started so far."""
        return self._channel.opened

    @property
    def promised_bytes(self) -> int:
        """What its engine has promised of the box's memory; 0 without a process or a ledger."""
        if self._ledger is None or self._process is None:
            return 0
        return self._ledger.read(self._row).promised_bytes

    @property
    def idle_kv_bytes(self) -> int:
        """KV that its engine keeps for nobody in particular, by its last word."""
        return int(self.stats.get("kv", {}).get("idle_bytes", 0))

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def trouble(self) -> str:
        """What the front should have achieved with this engine and did not; "" while it serves, loads or recovers."""
        late = "" if self.state is State.STOPPED else self._recovery.broken()
        return f"{late} is overdue model={self.name}" if late else ""

    async def stop(self) -> None:
        """Ask the engine to leave, kill it if it does not, and take the channel away."""
        previous, self.state = self.state, State.STOPPED
        self.changed.set()
        for timer in self._timers:
            timer.cancel()
        if self._process is not None:
            if previous is State.READY:
                self._ask_to_leave()
            else:
                self._process.kill()
            try:
                await asyncio.wait_for(self.gone(), GOODBYE_S)
            except TimeoutError:
                if self._process is not None:
                    self._process.kill()
                    await self.gone()
        self._channel.remove()

    def _ask_to_leave(self) -> None:
        with contextlib.suppress(Busy):  # it does not read: it leaves already, or is killed when it does not
            self._channel.send(wire.Quit())

    async def gone(self) -> None:
        """Return when there is no process."""
        while self._process is not None:
            self.changed.clear()
            await self.changed.wait()

    # ---- life of the process

    def _spawn(self) -> None:
        if self.state is State.STOPPED and self.starts:
            return
        self._stuck.begin()
        self._why_killed = ""
        self._recovery.kept()
        self._set(State.LOADING, "the engine is starting")
        try:
            self._process = self._start_process(self._channel.open())
        except (OSError, zmq.ZMQError) as error:  # no memory, descriptors or processes left: later there may be
            self._channel.close()
            log.error("engine cannot be started model=%s: %s", self.name, error)
            self._set(State.FAILED, f"the engine cannot be started: {error.strerror}")
            self._refuse_held()
            self._backoff_s = min(self._backoff_s * 2, MAX_BACKOFF_FAILED_S)
            self._respawn_in(self._backoff_s)
            return
        log.info("engine started model=%s pid=%d", self.name, self._process.pid)

    def _start_process(self, endpoint: str) -> EngineProcess:
        """With a row of the shared ledger, which is promised to it from its first moment."""
        options = {**self._options, **self._blame(), "restarts": self.restarts}
        if self._ledger is None:
            return EngineProcess(endpoint, options, self._ended)
        row, fd = self._ledger.free_row(), self._ledger.fd
        process = EngineProcess(endpoint, {**options, "ledger_fd": fd, "ledger_row": row}, self._ended, (fd,))
        self._ledger.write(row, Row(process.pid, 0, 0))
        self._row = row
        return process

    def _blame(self) -> dict[str, str]:
        """The provider on which engines ended again and again, for the next one to pass over; once."""
        if self._early_ends < BLAMED_AFTER or not self._provider:
            return {}
        reason = f"{self._early_ends} engines in a row ended within {STEADY_S:.0f} s ({self.last_end})"
        self._early_ends = 0
        return {"blamed_provider": self._provider, "blamed_reason": reason}

    def _set(self, state: State, reason: str) -> None:
        self.state, self.reason = state, reason
        self.changed.set()
        self._on_change()

    def _over(self, rid: int) -> None:
        self.live.discard(rid)
        self.used_s = time.monotonic()
        if not self.live:
            self._drained.set()

    def _heard(self, message: wire.ToFront) -> None:
        if isinstance(message, wire.Ready):
            self.info = message.info
            self._ready_s = self.used_s = time.monotonic()
            self._stuck.loaded()
            self._set(State.READY, "")
            log.info("model ready model=%s load_s=%.2f", self.name, message.info.get("load_s", 0.0))
            held, self.held = self.held, {}
            for start in held.values():
                self._channel.send(start)
        elif isinstance(message, wire.Loading):
            self._provider = message.provider or self._provider
            if self.state is State.LOADING:
                self._set(State.LOADING, message.phase)
        elif isinstance(message, wire.LoadFailed):
            reason = f"{message.file}: {message.reason}" if message.file else message.reason
            log.error("model cannot be loaded model=%s reason=%r", self.name, message.detail)
            self._set(State.FAILED, reason)
            self._channel.send(wire.Quit())  # it waits for this, so that the reason cannot be lost with it
        elif isinstance(message, wire.Stats):
            self.stats = message.values
            return
        elif isinstance(message, wire.Start):
            if message.rid not in self.live:
                return
            self.held[message.rid] = message  # the engine leaves and had not begun this one
        elif isinstance(message, wire.Done | wire.Result | wire.Failed):
            self.tally.note(message)
            self._over(message.rid)
        self._on_message(message)

    def _ended(self, exit_: Exit) -> None:
        process, self._process = self._process, None
        assert process is not None
        self._channel.read_rest()
        beat = process.pulse.read()
        process.close()
        if self._ledger is not None:
            self._ledger.clear(self._row)
        self._channel.close()
        self._recovery.kept()
        self.stats = {}
        self.last_end = self._why_killed or exit_.describe()
        if self.state is State.STOPPED:
            self.changed.set()
            return
        if self.state is State.UNLOADED:
            self.changed.set()
            if self.held:
                self._spawn()
            return
        if exit_.returncode == wire.LEFT_A_CALL and self.state is State.READY:
            log.info("engine ended itself model=%s, a new one is started", self.name)
            self._set(State.LOST, "the engine left a call that nobody waited for, and is restarted")
            self._answer_lost(NO_REQUEST)
            self._respawn_in(0.0)
            return
        served_s = time.monotonic() - self._ready_s if self.state is State.READY else 0.0
        if served_s > STEADY_S:
            self._backoff_s = FIRST_BACKOFF_S
        failed = self.state is State.FAILED
        if not failed:
            self._early_ends = 0 if served_s > STEADY_S else self._early_ends + 1
            self.restarts += 1
            was_ready = self.state is State.READY
            log.error("engine lost model=%s how=%r suspect_rid=%d", self.name, self.last_end, beat.rid)
            self._set(State.LOST if was_ready else State.FAILED, f"the engine ended ({self.last_end}) and is restarted")
            self._answer_lost(beat.rid if was_ready else NO_REQUEST)
        if self.state is State.FAILED:
            self._refuse_held()
        wait_s = self._backoff_s
        self._backoff_s = min(
            self._backoff_s * 2, MAX_BACKOFF_LOST_S if self.state is State.LOST else MAX_BACKOFF_FAILED_S
        )
        self._respawn_in(wait_s)

    def _answer_lost(self, suspect_rid: int) -> None:
        """What the engine had and did not give back."""
        self._on_lost(suspect_rid, self.last_end)
        lost = self.live - self.held.keys()
        self.tally.failed += len(lost)
        for rid in lost:
            self._over(rid)

    def _respawn_in(self, wait_s: float) -> None:
        self._recovery.promise("a new engine", wait_s + RESTART_ALLOWED_S)
        self._later(wait_s, self._respawn)

    def _respawn(self) -> None:
        failed_before = self.state is State.FAILED
        reason = self.reason
        if self.state is State.UNLOADED:  # meanwhile it was decided that nobody needs it
            return
        self._spawn()
        if (
            failed_before and self._process is not None
        ):  # until it proves itself, clients are told the last known reason, not made to wait
            self.state, self.reason = State.FAILED, reason

    def _refuse_held(self) -> None:
        error = self.unavailable()
        for rid in self.release_held():
            self._on_message(wire.Failed(rid, error.code, error.message, error.retry_after_ms))

    def _mind_idle(self) -> None:
        """Give the model's memory back when nobody needed it for `idle_s`; 0 keeps it."""
        if not self.idle_s or self.stays or self.state is not State.READY or self.live:
            return
        if time.monotonic() - self.used_s > self.idle_s:
            log.info("model unloaded model=%s idle_s=%g", self.name, self.idle_s)
            self.unload("not needed for a while; a request loads it again")

    def _watch(self) -> None:
        process = self._process
        if process is not None:
            beat = process.pulse.read()
            verdict = self._stuck.judge(beat, process.started_s, time.monotonic())
            if verdict is not Verdict.FINE:
                self._kill_stuck(process, beat, late=verdict is Verdict.LATE)
        self._mind_idle()
        self._recovery.watched(WATCH_ALLOWED_S)
        idle = self.state is State.READY and not self.live
        self._later(IDLE_WATCH_S if idle else WATCH_S, self._watch)

    def _kill_stuck(self, process: EngineProcess, beat: Beat, *, late: bool) -> None:
        if late:
            self._why_killed = f"not loaded within load_timeout_s = {self._options['load_timeout_s']:g} s"
            log.error("engine killed model=%s pid=%d: %s", self.name, process.pid, self._why_killed)
        else:
            log.error("engine hangs model=%s pid=%d rid=%d, killing it", self.name, process.pid, beat.rid)
        self._recovery.promise("the end of a killed engine", END_ALLOWED_S)
        process.kill()

    def _later(self, delay_s: float, what: Callable[[], None]) -> None:
        self._timers = [timer for timer in self._timers if timer.when() > asyncio.get_running_loop().time()]
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, what))
