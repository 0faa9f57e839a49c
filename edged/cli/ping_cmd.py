"""`edged ping`: is the daemon there, and how fast does its front answer."""

from __future__ import annotations

import json as jsonlib
import time
from typing import Annotated

import typer

from edged.cli.options import Endpoint, Json


def ping(
    count: Annotated[int, typer.Option("--count", "-c", min=1, max=1_000_000, help="How many.")] = 5,
    interval: Annotated[float, typer.Option(min=0, max=3600, help="Seconds between two.")] = 0.05,
    timeout: Annotated[float, typer.Option(min=0.001, max=3600, help="Seconds to wait for each.")] = 5.0,
    endpoint: Endpoint = None,
    json: Json = False,
) -> None:
    """Ask the daemon for a sign of life, several times, and tell how long it took (p50, p99)."""
    from edged.client import Client

    times_ms: list[float] = []
    with Client(endpoint, timeout_s=timeout) as client:
        for number in range(count):
            if number:
                time.sleep(interval)
            sent_s = time.perf_counter()
            client.ping()
            times_ms.append((time.perf_counter() - sent_s) * 1000)
        where = client.endpoint
    found = {
        "endpoint": where,
        "count": count,
        "min_ms": round(min(times_ms), 3),
        "p50_ms": round(quantile(times_ms, 0.5), 3),
        "p99_ms": round(quantile(times_ms, 0.99), 3),
        "max_ms": round(max(times_ms), 3),
    }
    if json:
        typer.echo(jsonlib.dumps(found))
    else:
        typer.echo(
            f"{where}: {count} answered; p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms, max {found['max_ms']} ms"
        )


def quantile(values: list[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
