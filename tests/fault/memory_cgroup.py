#!/usr/bin/env python3
"""Twice the demand that fits, inside a real memory cgroup; limits that fall while edged runs; limits below the weights.

The bar: no OOM kill, no engine restart, every refusal typed with a time to retry or with the most that fits. Prints a
JSON summary. Exit codes: 0 the bar holds, 1 it does not, 2 wrong usage, 77 no memory cgroup can be made here.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fault.memory_group import MemoryGroup, NotPossible
from tests.integration.raw import LAST, ROOT, Daemon, Peer, chat, until

MIB = 2**20
SLOT_TOKENS = 1024
SKIPPED = 77


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; the summary goes to stdout."""
    args = _parser().parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="edged-cgroup-") as scratch:
            model = args.model or make_model(Path(scratch), "tiny", "--layers", "32", "--vocab", "512")
            summary = {
                "demand": overload(
                    model, args.limit_mib * MIB, seconds=args.seconds, memory_reserve_bytes=args.reserve_mib * MIB
                ),
                "falling_limit": falling_limit(model, args.limit_mib * MIB),
                "below_weights": below_weights(
                    make_model(Path(scratch), "phi3.5-mini", "--layers", "2", "--vocab", "2048")
                ),
            }
    except NotPossible as error:
        print(f"memory_cgroup.py: {error}", file=sys.stderr)
        return SKIPPED
    problems = [f"{name}: {problem}" for name, part in summary.items() for problem in part["problems"]]
    print(json.dumps(summary | {"holds": not problems}, indent=2))
    return 1 if problems else 0


def make_model(scratch: Path, shape: str, *options: str) -> Path:
    """A synthetic model whose KV is large for its weights."""
    folder = scratch / shape
    command = [sys.executable, str(ROOT / "tools/make_synthetic.py"), shape, str(folder), "--quiet", *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def start(group: MemoryGroup, model: Path, **settings: Any) -> Daemon:
    """A daemon in the group, with the reserve that edged has by default."""
    defaults = {"kv_memory_bytes": 0, "memory_reserve_bytes": 512 * MIB, "memory_reserve_fraction": 0.1}
    with group.entered():
        return Daemon(model, **(defaults | {"ignore_eos": True} | settings))


class Client(threading.Thread):
    """Asks for a whole slot again and again, holds it for a moment, and counts what it is told."""

    def __init__(self, endpoint: str, number: int, end_s: float) -> None:
        super().__init__(daemon=True)
        self._endpoint, self._number, self._end_s = endpoint, number, end_s
        self.heard: Counter[str] = Counter()
        self.untyped: list[dict[str, Any]] = []

    def run(self) -> None:
        with Peer(self._endpoint) as peer:
            while time.monotonic() < self._end_s:
                self._one(peer)

    def _one(self, peer: Peer) -> None:
        session = {"session": f"c{self._number}"} if self._number % 2 else {}
        fields = chat(f"client {self._number}: tell me everything", max_tokens=SLOT_TOKENS - 200, **session)
        request = peer.send("chat", **fields, stream=True, deadline_ms=60_000)
        held = 0
        for event in peer.events(request, timeout_s=120):
            if event["ev"] == "delta":
                held += 1
                if held == 20:
                    peer.send("cancel", target=request)
            if event["ev"] in LAST:
                self._count(event)
        if event.get("retry_after_ms"):
            time.sleep(min(event["retry_after_ms"] / 1000, 1.0))

    def _count(self, event: dict[str, Any]) -> None:
        self.heard[event.get("code") or event["finish_reason"]] += 1
        if event["ev"] == "error" and not (event.get("retry_after_ms") or event.get("max_tokens_fit")):
            typed = event["code"] in ("deadline_exceeded", "cancelled")  # they say all there is to say
            if not typed:
                self.untyped.append(event)


def overload(model: Path, limit_bytes: int, *, seconds: float, **settings: Any) -> dict[str, Any]:
    """Clients whose requests together need twice the budget, for a while."""
    with MemoryGroup(limit_bytes) as group, start(group, model, max_queue=8, max_running=64, **settings) as daemon:
        kv = until(lambda: daemon.ready().model()["engine"].get("kv"), "the first figures", alive=daemon.process)
        slot_bytes = SLOT_TOKENS * kv["bytes_per_token"]
        clients_count = max(3, -(-2 * kv["budget_bytes"] // slot_bytes))
        clients = [
            Client(daemon.endpoint, number, time.monotonic() + seconds) for number in range(min(clients_count, 64))
        ]
        with Peer(daemon.endpoint) as peer:
            refused = peer.ask("chat", **chat("hi"), max_tokens=2**31 - 1)
            most = refused.get("max_tokens_fit", 0)
        for client in clients:
            client.start()
        peak_bytes = over = samples = 0
        while any(client.is_alive() for client in clients):
            now = daemon.model()["engine"]
            samples += 1
            peak_bytes = max(peak_bytes, group.used_bytes())
            booked = now["kv"]["running_bytes"] + now["kv"]["idle_bytes"]
            over += booked > max(now["kv"]["budget_bytes"], kv["budget_bytes"])
            time.sleep(0.1)
        engine = until(lambda: _idle(daemon), "the engine to idle", alive=daemon.process)
        heard = sum((client.heard for client in clients), Counter[str]())
        untyped = [event for client in clients for event in client.untyped]
        found = {
            "limit_mib": limit_bytes // MIB,
            "budget_mib": kv["budget_bytes"] // MIB,
            "clients": len(clients),
            "demand_mib": len(clients) * slot_bytes // MIB,
            "peak_used_mib": peak_bytes // MIB,
            "heard": dict(heard),
            "oom_kills": group.oom_kills(),
            "limit_hits": group.hits(),
            "restarts": daemon.model()["restarts"],
            "book_errors": engine["book_errors"],
            "samples": samples,
        }
    problems = []
    if found["oom_kills"] or found["restarts"] or found["book_errors"]:
        problems.append("a process was killed, restarted, or the books do not balance")
    if untyped:
        problems.append(f"refusals without a time or a size: {untyped[:3]}")
    if refused.get("code") != "too_large" or not most:
        problems.append(f"the most that fits was not said: {refused}")
    if over:
        problems.append(f"more booked than the budget in {over} of {samples} samples")
    if not heard["cancelled"]:
        problems.append("nobody was served")
    if "internal" in heard or "engine_lost" in heard:
        problems.append("untyped failures")
    return found | {"problems": problems}


def _idle(daemon: Daemon) -> dict[str, Any] | None:
    engine: dict[str, Any] = daemon.model()["engine"]
    return engine if not engine["running"] and not engine["waiting"] else None


def falling_limit(model: Path, limit_bytes: int) -> dict[str, Any]:
    """Idle sessions hold KV memory; the limit falls to just above what is in use, and rises again."""
    problems = []
    with MemoryGroup(limit_bytes) as group, start(group, model) as daemon, Peer(daemon.ready().endpoint) as peer:
        for number in range(4):
            peer.ask("chat", **chat("remember me"), session=f"idle {number}", max_tokens=SLOT_TOKENS - 600)
        until(lambda: daemon.model()["engine"].get("idle_slots", 0) >= 4, "four idle sessions", alive=daemon.process)
        held_bytes = daemon.model()["engine"]["kv"]["idle_bytes"]
        group.limit(group.used_bytes() + 100 * MIB)
        until(lambda: not daemon.model()["engine"]["idle_slots"], "idle memory to be given back", alive=daemon.process)
        squeezed = daemon.model()["engine"]
        refused = peer.ask("chat", **chat("hello"), max_tokens=SLOT_TOKENS * 3)
        if refused.get("code") not in ("too_large", "busy"):
            problems.append(f"admitted under a limit that cannot hold it: {refused}")
        if squeezed["admitting"]:
            problems.append("still admitting under pressure")
        group.limit(limit_bytes)
        until(lambda: daemon.model()["engine"]["admitting"], "admission to begin again", alive=daemon.process)
        after = peer.ask("chat", **chat("hello"), max_tokens=SLOT_TOKENS - 200)
        if after["ev"] != "done":
            problems.append(f"not served after the limit rose again: {after}")
        if group.oom_kills() or daemon.model()["restarts"]:
            problems.append("a process was killed")
        return {
            "idle_before_mib": held_bytes // MIB,
            "budget_squeezed_mib": squeezed["kv"]["budget_bytes"] // MIB,
            "refused": refused.get("code"),
            "oom_kills": group.oom_kills(),
            "problems": problems,
        }


def below_weights(model: Path) -> dict[str, Any]:
    """A limit smaller than the weights: refused with what is missing, and nothing is killed."""
    weights_bytes = (model / "model.onnx.data").stat().st_size
    problems = []
    with MemoryGroup(max(weights_bytes * 9 // 10, 128 * MIB)) as group, start(group, model) as daemon:
        daemon.until(lambda: daemon.model()["state"] == "failed", "the load to be refused")
        reason = daemon.model()["reason"] or ""
        with Peer(daemon.endpoint) as peer:
            asked = peer.ask("chat", **chat("hi"))
        if "MiB are missing" not in reason:
            problems.append(f"does not say what is missing: {reason}")
        if asked.get("code") != "unavailable":
            problems.append(f"a request was answered with {asked}")
        if group.oom_kills():
            problems.append("a process was killed")
        return {
            "weights_mib": weights_bytes // MIB,
            "reason": reason,
            "oom_kills": group.oom_kills(),
            "problems": problems,
        }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a model folder (made: 32 small layers, 32 KiB of KV a token)")
    parser.add_argument("--limit-mib", type=int, default=1280, help="the group's limit in MiB (1280)")
    parser.add_argument("--reserve-mib", type=int, default=512, help="memory_reserve_bytes under the demand (512)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long the demand lasts (30)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
