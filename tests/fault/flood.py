"""`python -m tests.fault.flood --count 10000 --connections 1000`: that many requests at once, over that many clients.

Each must be answered or told `busy`, none dropped, and the front's memory must stay small.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import ExitStack

import zmq

from tests.fault.report import finish, many_descriptors, parser, spread
from tests.integration.raw import LAST, Daemon, Peer, chat, rss_bytes

FRONT_MB = 64


def run(count: int, connections: int, seconds: float) -> int:
    """All requests are sent before the first answer is read; `seconds` bounds the wait for the last answer."""
    started_s = time.monotonic()
    many_descriptors()
    zmq.Context.instance().set(zmq.MAX_SOCKETS, connections + 64)
    failures: list[str] = []
    ends: Counter[str] = Counter()
    answered_after: list[float] = []
    with Daemon(default_max_tokens=1, max_clients=max(2048, connections)) as daemon, ExitStack() as stack:
        front = daemon.ready().pid
        before = most = rss_bytes(front)
        peers = [stack.enter_context(Peer(daemon.endpoint, SNDHWM=0, RCVHWM=0)) for _ in range(connections)]
        for peer in peers:  # all are connected
            peer.send("ping")
        for peer in peers:
            peer.receive()
        poller = zmq.Poller()
        for peer in peers:
            poller.register(peer.socket, zmq.POLLIN)
        by_socket = {peer.socket: peer for peer in peers}
        started_s = time.monotonic()
        for number in range(count):
            peers[number % connections].send("chat", **chat(f"hello {number}", max_tokens=1))
        left = count
        while left and time.monotonic() - started_s < seconds:
            for socket, _ in poller.poll(1000):
                while socket.poll(0):
                    reply = by_socket[socket].receive(0)
                    if reply["ev"] in LAST:
                        left -= 1
                        ends[reply.get("code", reply["ev"])] += 1
                        answered_after.append(time.monotonic() - started_s)
            most = max(most, rss_bytes(front))
        if left:
            failures.append(f"{left} of {count} were never answered")
        if set(ends) - {"done", "busy"}:
            failures.append(f"unexpected ends: {dict(ends)}")
        if most - before > FRONT_MB * 2**20:
            failures.append(f"the front grew by {(most - before) >> 20} MB")
        if daemon.status()["front"]["live_requests"]:
            failures.append("requests are left in the front")
    figures = {"requests": count, "connections": connections, "ends": dict(ends), "grew_mb": (most - before) >> 20}
    return finish("flood", started_s, failures, **figures, answered_after=spread(answered_after))


def main() -> int:
    arguments = parser(__doc__ or "", count=10_000, seconds=120)
    arguments.add_argument("--connections", type=int, default=1000, help="how many clients")
    given = arguments.parse_args()
    return run(given.count, given.connections, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
