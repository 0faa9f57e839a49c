"""`python -m tests.fault.vanishing_clients --count 500`: clients that leave in the middle, in every way there is.

DEALER and REQ close their socket or are killed as processes; each one's request must end and its memory be freed.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time

import zmq

from tests.fault.report import finish, parser, spread
from tests.integration.raw import ROOT, Daemon, Peer, descriptors, until

FREED_S = 1.0 + 0.35  # the bar, and one slice

KILLED = """
import sys, time
from tests.integration.raw import Peer
peer = Peer(sys.argv[1])
request = peer.send("generate", prompt="killed", max_tokens=3000, stream=True)
peer.until_event(request, "accepted")
print("running", flush=True)
time.sleep(60)
"""


def run(count: int, seconds: float, seed: int) -> int:
    """`count` clients, one after the other."""
    started_s = time.monotonic()
    chance = random.Random(seed)
    failures: list[str] = []
    freed: list[float] = []
    ways = {"DEALER": 0, "REQ": 0, "killed": 0}
    with Daemon(ignore_eos=True) as daemon, Peer(daemon.ready().endpoint) as watcher:
        watcher.ask("ping")
        before = len(descriptors(daemon.pid))

        def is_free() -> bool:
            status = watcher.ask("status")
            kv = status["models"][0]["engine"].get("kv", {"running_bytes": 1})
            return status["front"]["live_requests"] == 0 and kv["running_bytes"] == 0

        started_s = time.monotonic()
        for number in range(count):
            if time.monotonic() - started_s > seconds:
                break
            way = "killed" if number % 25 == 24 else chance.choice(("DEALER", "REQ"))
            _vanish(daemon, way, chance)
            left_s = time.monotonic()
            ways[way] += 1
            try:
                until(is_free, f"client {number} ({way}) to be forgotten", 30, daemon.process)
            except AssertionError as error:
                failures.append(str(error))
                break
            freed.append(time.monotonic() - left_s)
        if freed and max(freed) > FREED_S:
            failures.append(f"memory was freed after {max(freed):.2f} s, the bar is {FREED_S}")
        if len(descriptors(daemon.pid)) > before + 1:
            failures.append(f"descriptors grew from {before} to {len(descriptors(daemon.pid))}")
        if daemon.model()["restarts"] or daemon.model()["engine"]["book_errors"]:
            failures.append(f"engine: {daemon.model()}")
    return finish("vanishing_clients", started_s, failures, clients=ways, freed_after=spread(freed), seed=seed)


def _vanish(daemon: Daemon, way: str, chance: random.Random) -> None:
    if way == "killed":
        command = [sys.executable, "-c", KILLED, daemon.endpoint]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as client:
            assert client.stdout is not None
            client.stdout.readline()
            client.kill()
        return
    peer = Peer(daemon.endpoint, zmq.DEALER if way == "DEALER" else zmq.REQ)
    request = peer.send("generate", prompt="vanishing", max_tokens=3000, stream=way == "DEALER")
    if way == "DEALER" and chance.random() < 0.5:
        peer.until_event(request, chance.choice(("accepted", "delta")))
    else:
        time.sleep(chance.random() * 0.05)
    peer.close()


def main() -> int:
    arguments = parser(__doc__ or "", count=500, seconds=1800)
    arguments.add_argument("--seed", type=int, default=1, help="of the ways to leave")
    given = arguments.parse_args()
    return run(given.count, given.seconds, given.seed)


if __name__ == "__main__":
    sys.exit(main())
