"""The order of a benchmark run; what each figure means is in measures.py."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from edged.bench import measures
from edged.bench.measures import Figure
from edged.bench.peers import BareLoop, Peer, PrivateDaemon
from edged.store.manifest import read_manifest
from edged.store.models import find_model

FULL_SIZE_BYTES = 1_000_000_000  # weights above this count as full size for the bars that differ
SMALL_RUNS = 5  # for each repeat: the answers of a small model take milliseconds, and its rate wavers
FIGURES = frozenset({"speed", "ping", "gap", "session", "cancel", "memory", "start"})


@dataclass(slots=True)
class Report:
    """All figures of one run."""

    model: str
    weights_bytes: int = 0
    figures: list[Figure] = field(default_factory=list)


def run(
    model: str,
    state: Path,
    *,
    repeats: int,
    max_tokens: int,
    threads: int,
    only: frozenset[str],
    tell: Callable[[str], None],
) -> Report:
    """Measure `only` these of FIGURES. Raises BenchError when a side fails."""
    with tempfile.TemporaryDirectory(prefix="edged-bench-state-") as own:
        return _run(model, state, Path(own), repeats, max_tokens, threads, only, tell)


def _run(
    model: str,
    state: Path,
    own: Path,
    repeats: int,
    max_tokens: int,
    threads: int,
    wanted: frozenset[str],
    tell: Callable[[str], None],
) -> Report:
    folder = find_model(model, state).folder
    report = Report(str(folder), read_manifest(folder).weights_bytes)
    full_size = report.weights_bytes > FULL_SIZE_BYTES
    if "start" in wanted:
        tell("start to ready")
        report.figures += _start(str(folder), own, full_size=full_size)
    tell("loading both sides")
    settings = {"threads": threads, "ignore_eos": True}
    with PrivateDaemon(str(folder), own, **settings) as daemon, BareLoop(folder, threads) as bare:
        daemon.wait_ready()
        with Peer(daemon.endpoint) as peer, Peer(daemon.endpoint) as other:
            if "memory" in wanted:
                report.figures.append(_front_memory(peer))
            if "speed" in wanted:
                tell("decode rate and time to first token")
                bar, runs = (0.98, repeats) if full_size else (0.75, SMALL_RUNS * repeats)
                report.figures += measures.speed(bare, peer, runs, max_tokens, bar)
            if "ping" in wanted:
                tell("ping while a prompt is read")
                report.figures.append(measures.ping_while_reading(peer, other))
            if "gap" in wanted:
                tell("token gap while a prompt is read")
                report.figures.append(measures.gap_while_reading(peer, other))
            if "session" in wanted:
                tell("second turn of a session")
                report.figures.append(measures.second_turn(bare, peer, repeats, full_size=full_size))
            if "cancel" in wanted:
                tell("cancel")
                report.figures.append(measures.cancel(peer, max(2, repeats)))
    return report


def _start(folder: str, state: Path, *, full_size: bool) -> list[Figure]:
    """From process start to a model that has answered: on a box never seen, and again with the probe remembered.

    There is a bar for a small model; at full size it is the disk's time, and the memory's.
    """
    times = []
    for _ in range(2):
        with PrivateDaemon(folder, state) as daemon:
            times.append(daemon.wait_ready())
    first_s, again_s = times
    figures = [Figure("start to ready, first", first_s, "s"), Figure("start to ready, again", again_s, "s")]
    if full_size:
        return figures
    return [
        replace(figure, bar=f"≤ {most_s}", met=figure.value <= most_s)
        for figure, most_s in zip(figures, (10, 2), strict=True)
    ]


def _front_memory(peer: Peer) -> Figure:
    rss_mb = peer.status()["front"]["rss_bytes"] / 1e6
    return Figure("front RSS, idle", rss_mb, "MB", "≤ 48", rss_mb <= 48)
