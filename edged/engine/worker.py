"""`python -m edged.engine.worker ENDPOINT PULSE_FD FRONT_PID`: the engine process; the front's child, dies with it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from edged.engine.choose import forget_not, selection_map
from edged.engine.fallback import take_blame
from edged.engine.heat import Heat
from edged.engine.intake import Policy
from edged.engine.link import FrontLink
from edged.engine.load import Loaded, load
from edged.engine.options import EngineOptions, read_options
from edged.engine.report import stats
from edged.engine.scheduler import Scheduler
from edged.errors import ModelError
from edged.hardware.pressure import PressureLevel
from edged.hardware.trial_messages import CPU
from edged.hardware.tune_table import Failure
from edged.logs import set_up
from edged.protocol import engine as wire
from edged.protocol.pulse import PulseWriter
from edged.store.plain_manifest import is_plain

log = logging.getLogger(__name__)

IDLE_WAIT_S = 1.0
LOOK_EVERY_S = 0.002  # the longest that a cancel or a new request waits for short turns
BLOCKED_WAIT_S = 0.02
IDLE_ALLOWED_S = 2.0
TICK_S = 1.0
FAREWELL_S = 5.0
MOST_FAILURES = 3  # native calls in a row, before a provider other than the CPU is left
OOM_SCORE_ADJ = 500  # when memory runs out the kernel takes the engine, which is restarted, and not the front
NICENESS = 5  # the front answers pings while the engine computes
PR_SET_PDEATHSIG = 1


def main() -> int:
    """Exit status: 0 asked to leave, 1 the model cannot be loaded, 2 wrong use, 3 its provider fails while serving, 4 a
    native call went on that nobody waited for."""
    if len(sys.argv) != 4:
        print("edged.engine.worker is started by `edged serve`", file=sys.stderr)
        return 2
    _settle_in()
    if os.getppid() != int(sys.argv[3]):
        return 0  # the front died before we could ask to die with it
    options = read_options()
    set_up(options.log_level, options.log_format)
    pulse = PulseWriter(int(sys.argv[2]))
    front = FrontLink(sys.argv[1])
    pulse.beat(options.load_timeout_s)
    try:
        info, serve = _load(front, pulse, options)
    except ModelError as error:
        return _give_up(front, wire.LoadFailed(error.file, error.reason, str(error)))
    except Exception as error:
        log.exception("loading failed")
        reason = f"loading it failed ({type(error).__name__}); the log has the details"
        return _give_up(front, wire.LoadFailed("", reason, repr(error)))
    front.send(wire.Ready(info | {"pid": os.getpid()}))
    serve()
    front.close()
    return 0


def _load(front: FrontLink, pulse: PulseWriter, options: EngineOptions) -> tuple[dict[str, object], Callable[[], None]]:
    """What is told of the model, and the loop that serves it: a plain model has one of its own."""

    def tell(phase: str, provider: str = "") -> None:
        front.send(wire.Loading(phase, provider))

    take_blame(options)
    if is_plain(Path(options.folder)):
        from edged.engine.plain.load import load_plain
        from edged.engine.plain.serve import serve_plain

        plain = load_plain(options, pulse, tell)
        return plain.info(), partial(serve_plain, front, pulse, options, plain)
    loaded = load(options, pulse, tell)
    return _info(options, loaded), partial(_serve, front, pulse, options, loaded)


def _give_up(front: FrontLink, why: wire.LoadFailed) -> int:
    """Say why, and leave once the front has heard it: the news of our end travels faster than our words."""
    front.send(why)
    front.receive(FAREWELL_S)
    front.close()
    return 1


def _settle_in() -> None:
    """Die with the front, go first when memory runs out, leave the CPU to whoever answers; be silent on the network."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd's stop signal reaches the whole group; the front drains
    try:
        adjusted = max(OOM_SCORE_ADJ, int(Path("/proc/self/oom_score_adj").read_text()))
        Path("/proc/self/oom_score_adj").write_text(str(adjusted))
    except (OSError, ValueError):
        pass  # hidden /proc: the kernel's own choice is the engine anyway, it is the largest
    os.nice(NICENESS)


def _serve(front: FrontLink, pulse: PulseWriter, options: EngineOptions, loaded: Loaded) -> None:
    scheduler = Scheduler(
        loaded.backend,
        loaded.pace,
        Policy(
            default_max_tokens=options.default_max_tokens,
            max_queue=options.max_queue,
            max_queue_per_client=options.max_queue_per_client,
            max_running=options.max_running,
            max_sessions=options.max_sessions,
            session_idle_s=options.session_idle_s,
            prefix_idle_s=options.prefix_idle_s,
            stream_interval_s=options.stream_interval_ms / 1000,
            tokens_per_minute_per_uid=options.tokens_per_minute_per_uid,
            kv_share_per_uid=options.kv_share_per_uid,
            max_priority=options.max_priority,
            session_reread=options.session_reread,
            abandoned_call_s=options.abandoned_call_s,
        ),
        send=front.send,
        budget_bytes=loaded.memory.budget_bytes,
        strips_first_space=loaded.strips_first_space,
        listen=lambda: front.receive(0.0),
        neighbours=loaded.memory.neighbours,
        leave=partial(_leave_call, front),
    )
    loaded.memory.kv_held = lambda: scheduler.slots.ledger.total_bytes
    heat = Heat()
    next_tick_s = 0.0
    while True:
        pulse.beat(IDLE_ALLOWED_S)
        messages = scheduler.meanwhile.take_put_off()
        for message in [*messages, *front.receive(0.0 if messages else _patience_s(scheduler))]:
            match message:
                case wire.Start():
                    scheduler.submit(message)
                case wire.Stop():
                    scheduler.stop(message.rid, message.reason)
                    if not scheduler.busy:
                        next_tick_s = 0.0  # status shall not say for another second that its memory is taken
                case wire.Quit():
                    return
        started_s = time.monotonic()
        if scheduler.busy:
            scheduler.turn()
            while scheduler.jobs and time.monotonic() - started_s < LOOK_EVERY_S:
                scheduler.turn()  # a small model has several tokens in the time that looking for messages costs
            _rest(scheduler, heat.rest_s(time.monotonic() - started_s))
            if loaded.backend.failures_in_a_row >= MOST_FAILURES and loaded.selection.got.key != CPU.key:
                _leave_provider(front, options, loaded.selection.got.key)
            if not scheduler.busy:
                next_tick_s = 0.0  # nor that something runs
        elif scheduler.unsettled and started_s < next_tick_s:  # what is due to be told is told first
            scheduler.settle()
            _rest(scheduler, heat.rest_s(time.monotonic() - started_s))
        now_s = time.monotonic()
        if now_s >= next_tick_s:
            next_tick_s = now_s + TICK_S
            scheduler.tick()
            _mind_memory(scheduler, loaded)
            _mind_heat(scheduler, heat, options.max_running)
            front.send(
                wire.Stats({**stats(scheduler, loaded.pace), "memory": loaded.memory.to_map(), "heat": heat.to_map()})
            )


def _leave_call(front: FrontLink) -> None:
    """In the middle of a native call that cannot be ended otherwise."""
    log.warning("engine ends itself: a native call went on that nobody waited for")
    front.close()
    os._exit(wire.LEFT_A_CALL)


def _leave_provider(front: FrontLink, options: EngineOptions, key: str) -> None:
    """It fails at everything: the next engine takes the next best."""
    reason = f"{MOST_FAILURES} native calls in a row failed; the log has them"
    log.error("provider failed model=%s provider=%s: %s", options.name, key, reason)
    forget_not(options, Failure(key, reason, time.time()))
    front.close()
    sys.exit(3)


def _patience_s(scheduler: Scheduler) -> float:
    """How long to wait for messages: not at all while something runs, shortly while all that waits must wait."""
    if scheduler.jobs or scheduler.unsettled:
        return 0.0
    return BLOCKED_WAIT_S if scheduler.busy else IDLE_WAIT_S


def _mind_memory(scheduler: Scheduler, loaded: Loaded) -> None:
    """Under pressure: stop admitting, give back idle KV, then end the newest request, in that order."""
    loaded.memory.budget()
    level = loaded.memory.pressure
    scheduler.booking.admitting = level is PressureLevel.NONE
    if level is PressureLevel.NONE:
        return
    given_back = scheduler.slots.give_back(scheduler.slots.ledger.idle_bytes)
    scheduler.counts["given_back"] += given_back
    if given_back:
        log.warning("memory pressure=%s idle slots given back: %d", level.name.lower(), given_back)
    elif level is PressureLevel.CRITICAL:
        scheduler.shed_newest()


def _mind_heat(scheduler: Scheduler, heat: Heat, max_running: int) -> None:
    """At a limit: pauses between turns and fewer requests at once, rather than be throttled blindly."""
    if heat.look():
        scheduler.booking.max_running = heat.duty.slots(max_running)
        log.warning("duty share=%.2f reason=%r", heat.duty.share, heat.duty.reason or "cool again")


def _rest(scheduler: Scheduler, rest_s: float) -> None:
    if rest_s > 0:
        time.sleep(rest_s)
        scheduler.rested(rest_s)


def _info(options: EngineOptions, loaded: Loaded) -> dict[str, object]:
    info = loaded.backend.info
    return {
        "type": info.type,
        "context_tokens": info.context_tokens,
        "vocab_size": info.vocab_size,
        "kv_bytes_per_token": info.kv_bytes_per_token,
        "weights_bytes": info.weights_bytes,
        "provider": info.provider,
        "takes": ["text", "image", "video"] if info.most_crops else ["text"],
        "selection": selection_map(loaded.selection),
        "load_s": round(loaded.load_s, 3),
    }


if __name__ == "__main__":
    sys.exit(main())
