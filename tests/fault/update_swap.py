"""`python -m tests.fault.update_swap --count 20`: model versions swapped under load; no stream may be lost.

Clients ask without a pause. Each round publishes a release of the nano model, and the daemon fetches, tests and takes
it over. Time to the first token of every request is measured, in a swap (from its test to its watch) and outside of it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fault.report import finish, parser, spread
from tests.integration.asker import Answered, Asker
from tests.integration.box import Box, record
from tests.integration.raw import Daemon, children, running, until

MOST_ADDED_S = 1.0


def run(count: int, seconds: float, clients: int, tokens: int) -> int:
    """`count` swaps."""
    failures: list[str] = []
    swaps: list[tuple[float, float]] = []
    engines: set[int] = set()
    with Daemon(follow_updates=False, ignore_eos=True) as reference:
        golden = record(reference.ready())
    with tempfile.TemporaryDirectory(prefix="edged-swap-") as folder, Box(Path(folder), golden) as box:
        client = box.client(update_watch_s=0.2)
        assert box.running is not None
        started_s = time.monotonic()
        with Asker(client.endpoint, clients=clients, tokens=tokens) as asker:
            until(lambda: len(asker.answered) >= 4 * clients, "answers before the first swap", 120)
            for number in range(1, count + 1):
                if time.monotonic() - started_s > seconds:
                    break
                engines.update(children(box.running.pid))
                steps = _swap(box, client, number, failures)
                swaps.append((steps.get("testing", steps["asked"]), steps["taken"]))
                until(lambda: len(children(box.running.pid)) == 1, "the old engine to end", 120)  # type: ignore[union-attr]
        lost, answered = asker.lost, asker.answered
        left = [pid for pid in engines - set(children(box.running.pid)) if running(pid)]
        if left:
            failures.append(f"engines that are left: {left}")
    inside, outside = _ttft(answered, swaps)
    added_s = max(inside, default=0.0) - sorted(outside)[len(outside) // 2] if outside else 0.0
    failures += lost
    if added_s > MOST_ADDED_S:
        failures.append(f"a request that arrived in a swap waited {added_s:.2f} s longer than one outside")
    return finish(
        "update_swap",
        started_s,
        failures,
        swaps=len(swaps),
        streams=len(answered),
        lost=len(lost),
        clients=clients,
        tokens=tokens,
        swap=spread([end_s - begin_s for begin_s, end_s in swaps]),
        first_token_outside={"requests": len(outside), **spread(outside)},
        first_token_inside={"requests": len(inside), **spread(inside)},
        added_at_most_s=round(added_s, 3),
    )


def _swap(box: Box, client: Any, number: int, failures: list[str]) -> dict[str, float]:
    """One release, taken; when each step began."""
    steps = {"asked": time.monotonic()}
    box.publish(f"{number}.0", number)
    done = client.update("apply", progress=lambda told: steps.setdefault(told["phase"], time.monotonic()))
    steps["taken"] = time.monotonic()
    if (done["outcome"], done.get("active")) != ("taken", f"{number}.0"):
        failures.append(f"swap {number}: {done['outcome']}: {done.get('reason') or done['last']['message']}")
    until(lambda: client.update("status")["takeover"]["phase"] == "committed", "the watch to end", 120)
    return steps


def _ttft(answered: list[Answered], swaps: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Times to the first token: of requests that arrived in a swap, and of the others."""
    inside, outside = [], []
    for one in answered:
        in_one = any(begin_s <= one.asked_s <= end_s for begin_s, end_s in swaps)
        (inside if in_one else outside).append(one.first_s - one.asked_s)
    return inside, outside


def main() -> int:
    arguments = parser(__doc__ or "", count=20, seconds=1800)
    arguments.add_argument("--clients", type=int, default=3, help="that ask at once")
    arguments.add_argument("--tokens", type=int, default=200, help="of each answer")
    given = arguments.parse_args()
    return run(given.count, given.seconds, given.clients, given.tokens)


if __name__ == "__main__":
    sys.exit(main())
