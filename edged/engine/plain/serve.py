"""The loop of an engine that has a plain model: messages in, one run after the other, status about once a second."""

from __future__ import annotations

import logging
import time
from typing import Any

from edged.engine.heat import Heat
from edged.engine.link import FrontLink
from edged.engine.options import EngineOptions
from edged.engine.plain.batches import Batches, Limits
from edged.engine.plain.load import LoadedPlain
from edged.hardware.pressure import PressureLevel
from edged.protocol import engine as wire
from edged.protocol.pulse import PulseWriter

log = logging.getLogger(__name__)

IDLE_WAIT_S = 0.5
IDLE_ALLOWED_S = 2.0
TICK_S = 1.0


def serve_plain(front: FrontLink, pulse: PulseWriter, options: EngineOptions, loaded: LoadedPlain) -> None:
    """Until the front says Quit."""
    limits = Limits(options.max_queue, options.max_queue_per_client, options.image_decode_s, options.restarts > 0)
    batches = Batches(
        loaded.runner,
        loaded.tasks,
        limits,
        send=front.send,
        budget_bytes=loaded.memory.budget_bytes,
        promise=loaded.memory.neighbours.promise,
    )
    loaded.memory.kv_held = lambda: batches.ledger.total_bytes
    heat = Heat()
    next_tick_s = 0.0
    while True:
        pulse.beat(IDLE_ALLOWED_S)
        for message in front.receive(0.0 if batches.busy else IDLE_WAIT_S):
            match message:
                case wire.Start():
                    batches.submit(message)
                case wire.Stop():
                    batches.stop(message.rid, message.reason)
                case wire.Quit():
                    return
        started_s = time.monotonic()
        if batches.busy:
            batches.turn()
            rest_s = heat.rest_s(time.monotonic() - started_s)
            if rest_s > 0:
                time.sleep(rest_s)
            if not batches.busy:
                next_tick_s = min(next_tick_s, started_s + TICK_S / 10)
        if time.monotonic() >= next_tick_s:
            next_tick_s = time.monotonic() + TICK_S
            heat.look()
            batches.tick()
            loaded.memory.budget()
            batches.admitting = loaded.memory.pressure is not PressureLevel.CRITICAL
            front.send(wire.Stats(_stats(batches, loaded, heat)))


def _stats(batches: Batches, loaded: LoadedPlain, heat: Heat) -> dict[str, Any]:
    runner = loaded.runner
    return {
        "running": 0,
        "waiting": batches.live,
        "admitting": batches.admitting,
        "runs": runner.runs,
        "rows_per_run": round(runner.rows / runner.runs, 2) if runner.runs else 0.0,
        "row_ms": round(runner.row_s * 1000, 4),
        "kv": {
            "budget_bytes": loaded.memory.budget_bytes(),
            "running_bytes": batches.ledger.running_bytes,
            "idle_bytes": 0,
        },
        "memory": loaded.memory.to_map(),
        "heat": heat.to_map(),
        **batches.counts,
    }
