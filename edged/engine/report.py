"""What `status` shows of an engine. Reads, changes nothing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from edged.engine.pace import Pace
from edged.engine.scheduler import Scheduler

MAX_SHOWN_SLOTS = 64


def stats(scheduler: Scheduler, pace: Pace) -> dict[str, Any]:
    """What `status` shows of this engine."""
    books = scheduler.booking.books()
    return {
        "running": len(scheduler.jobs),
        "waiting": len(scheduler.queue),
        "idle_slots": len(scheduler.slots.idle),
        "kv": {
            "budget_bytes": books.budget_bytes,
            "running_bytes": books.running_bytes,
            "idle_bytes": books.idle_bytes,
            "other_models_bytes": books.lent_bytes,
            "bytes_per_token": books.bytes_per_token,
            "context_tokens": books.context_tokens,
            "most_tokens": books.most_tokens,
        },
        "prefill_tps": round(pace.prefill_tps, 1),
        "decode_tps": round(1 / pace.step_s, 1) if pace.step_s else 0.0,
        "slice_tokens": pace.slice_tokens(),
        "slice_tokens_alone": pace.slice_tokens(alone=True),
        "admitting": scheduler.booking.admitting,
        "slots": [asdict(entry) for entry in scheduler.slots.ledger.entries()[:MAX_SHOWN_SLOTS]],
        **({"seeing_tps": round(pace.seeing_tps, 1)} if pace.seeing_tps else {}),
        **scheduler.counts,
    }
