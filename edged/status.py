"""What `status` answers: one map from what the front knows and what the engine last said. No measuring here."""

from __future__ import annotations

import os
import time
from typing import Any

from edged import __version__
from edged.hardware.memory import process_rss
from edged.serving.engine_link import EngineLink
from edged.serving.router import Router, describe_link


def describe(router: Router) -> dict[str, Any]:
    """The `status` result. Byte counts are bytes, times seconds."""
    front_rss = process_rss()
    return {
        "version": __version__,
        "uptime_s": round(time.monotonic() - router.started_s, 3),
        "draining": router.draining,
        "front": {
            "pid": os.getpid(),
            "rss_bytes": front_rss.rss_bytes if front_rss else None,
            "connections": router.door.connections,
            "blocked_clients": router.door.blocked_clients,
            "live_requests": len(router.streams),
            "quarantined_inputs": len(router.quarantine),
            "counts": dict(router.counts),
        },
        "models": [_model(link) for link in router.engines],
        "updates": router.update_phases(),
        "candidates": [_model(link) for link in router.engines.candidates],
    }


def _model(link: EngineLink) -> dict[str, Any]:
    life = {"restarts": link.restarts, "last_end": link.last_end or None}
    return {**describe_link(link), **life, "served": link.tally.to_map(), "engine": link.stats}
