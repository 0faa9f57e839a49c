"""`python -m tests.fault.slow_readers --count 100`: clients that ask for much and read nothing.

Each must be ended by itself, the front stay small, and another client's stream lose next to nothing.
"""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack

from tests.fault.report import finish, many_descriptors, parser
from tests.integration.raw import Daemon, Peer, rss_bytes, until

FRONT_MB = 32
FAIR = {"prompt": "on and on", "max_tokens": 400, "stream": True}


def run(count: int, seconds: float) -> int:
    """`count` slow readers beside one that reads."""
    started_s = time.monotonic()
    many_descriptors()
    failures: list[str] = []
    limits = {"outbox_bytes": 32768, "slow_consumer_s": 2, "max_running": 4, "max_queue": 1000, "max_requests": 5000}
    with Daemon(ignore_eos=True, **limits) as daemon, ExitStack() as stack, Peer(daemon.endpoint) as fair:
        front = daemon.ready().pid
        alone_tps = fair.ask("generate", **FAIR)["timings"]["decode_tps"]
        before = most = rss_bytes(front)
        for number in range(count):
            slow = stack.enter_context(Peer(daemon.endpoint, RCVHWM=1, RCVBUF=4096))
            prompt = f"slow {number}"
            slow.send("generate", prompt=prompt, max_tokens=3000, stream=True, logprobs=20, priority=0)
        beside = fair.ask("generate", priority=9, **FAIR)
        if beside["ev"] != "done":
            failures.append(f"the client that reads: {beside}")

        def ended() -> bool:
            nonlocal most
            most = max(most, rss_bytes(front))
            return bool(daemon.status()["front"]["live_requests"] == 0)

        try:
            until(ended, "all slow readers to be ended", seconds, daemon.process)
        except AssertionError as error:
            failures.append(str(error))
        counts = daemon.status()["front"]["counts"]
        told = counts.get("error.slow_consumer", 0)
        after_tps = fair.ask("generate", **FAIR)["timings"]["decode_tps"]  # they are all still connected and unread
        if most - before > FRONT_MB * 2**20:
            failures.append(f"the front grew by {(most - before) >> 20} MB")
        if daemon.model()["engine"]["book_errors"]:
            failures.append("the memory books did not balance")
    figures = {"slow_readers": count, "told_slow_consumer": told, "grew_mb": (most - before) >> 20}
    tps = {"alone": alone_tps, "beside_them": beside.get("timings", {}).get("decode_tps"), "after_them": after_tps}
    return finish("slow_readers", started_s, failures, **figures, decode_tps=tps)


def main() -> int:
    given = parser(__doc__ or "", count=100, seconds=600).parse_args()
    return run(given.count, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
