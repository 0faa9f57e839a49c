"""`python -m tests.fault.fuzz_zmtp --seconds 60`: raw bytes on the socket in place of ZMTP 3 (rfc.zeromq.org/spec/23):
greetings, handshakes, commands and frames, mutated. The daemon must neither end nor leak nor stop serving.
"""

from __future__ import annotations

import contextlib
import random
import socket
import sys
import time

import msgpack
import zmq

from tests.fault.report import finish, parser
from tests.integration.raw import Daemon, Peer, descriptors, rss_bytes, until

GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 16 + b"\0" + b"\0" * 31
PING = msgpack.packb({"v": 1, "id": 1, "op": "ping"})
FRAMES = [
    bytes([0, len(PING)]) + PING,
    b"\x01\x00" + bytes([0, len(PING)]) + PING,
    b"\x02" + len(PING).to_bytes(8, "big") + PING,
    b"\x04\x07\x04PING\x00\x00",
    b"\x04\x06\x04PONGx",
    b"\x04\x08\x05ERROR\x01x",
    b"\x01\x03abc" * 3,
]


def mutant(chance: random.Random) -> tuple[list[bytes], int]:
    """What one connection sends, in pieces, and how many mutants are among them."""
    parts = [GREETING, ready()] + [chance.choice(FRAMES) for _ in range(chance.randrange(24))]
    spoiled = 0
    first = chance.choice((0, 1, 2, 2, 2, 2))  # mostly past the handshake, where the parser is
    for at in range(first, len(parts)):
        if at == first or chance.random() < 0.7:
            parts[at] = _spoil(parts[at], chance)
            spoiled += 1
    return parts, max(1, spoiled)


def ready() -> bytes:
    """The READY command of a DEALER."""
    body = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
    return bytes([4, len(body)]) + body


def _spoil(data: bytes, chance: random.Random) -> bytes:
    spoiled = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(spoiled) + 1)
        match chance.randrange(5):
            case 0 if spoiled:
                spoiled[at % len(spoiled)] ^= 1 << chance.randrange(8)
            case 1:
                del spoiled[at : at + chance.randrange(1, 12)]
            case 2:
                spoiled[at:at] = chance.randbytes(chance.randrange(1, 20))
            case 3:
                spoiled[at:at] = chance.choice(
                    (b"\x02" + b"\xff" * 8, b"\x02" + b"\x7f" * 8, b"\x06\0\0\0\1", b"\xff" * 9)
                )
            case _:
                spoiled = spoiled[: at or 1]
    return bytes(spoiled)


def run(count: int, seconds: float, seed: int, open_at_once: int) -> int:
    """At most `count` mutants in at most `seconds`."""
    started_s = time.monotonic()
    chance = random.Random(seed)
    failures: list[str] = []
    sent = connections = 0
    with Daemon(max_clients=64) as daemon:
        path = str(daemon.ready().socket)
        before, before_rss = len(descriptors(daemon.pid)), rss_bytes(daemon.pid)
        held: list[socket.socket] = []
        started_s = time.monotonic()
        while sent < count and time.monotonic() - started_s < seconds and daemon.process.poll() is None:
            parts, spoiled = mutant(chance)
            connections += 1
            sent += spoiled
            raw = socket.socket(socket.AF_UNIX)
            raw.settimeout(2)
            with contextlib.suppress(OSError):  # the daemon may hang up, or have its accept queue full
                raw.connect(path)
                raw.sendall(b"".join(parts))
            held.append(raw)
            if len(held) >= open_at_once:
                chance.shuffle(held)
                held.pop().close()
            if connections % 2000 == 0 and not _serves(daemon):
                failures.append(f"no answer to a ping after {connections} connections")
                break
        for raw in held:
            raw.close()
        if daemon.process.poll() is not None:
            failures.append(f"the daemon ended with {daemon.process.returncode}: {daemon.log()[-2000:]}")
        elif not _serves(daemon):
            failures.append("no answer to a ping at the end")
        else:
            with contextlib.suppress(AssertionError):
                until(lambda: len(descriptors(daemon.pid)) <= before + 2, "descriptors to be given back", 15)
            after, after_rss = len(descriptors(daemon.pid)), rss_bytes(daemon.pid)
            if after > before + 2:
                failures.append(f"descriptors grew from {before} to {after}")
            if after_rss - before_rss > 64 * 2**20:
                failures.append(f"the front grew by {after_rss - before_rss} bytes")
            figures = {"descriptors": [before, after], "rss_mb": [before_rss >> 20, after_rss >> 20]}
            if "Traceback" in daemon.log():
                failures.append(f"an exception: {daemon.log()[-2000:]}")
            return finish("fuzz_zmtp", started_s, failures, mutants=sent, connections=connections, seed=seed, **figures)
    return finish("fuzz_zmtp", started_s, failures, mutants=sent, connections=connections, seed=seed)


def _serves(daemon: Daemon) -> bool:
    with Peer(daemon.endpoint, zmq.REQ) as peer, contextlib.suppress(AssertionError):
        peer.send("ping")
        return peer.receive(15)["ev"] == "result"
    return False


def main() -> int:
    arguments = parser(__doc__ or "", count=1_000_000, seconds=60)
    arguments.add_argument("--seed", type=int, default=1, help="of the mutations")
    arguments.add_argument("--open", type=int, default=40, help="connections held open at once")
    given = arguments.parse_args()

    return run(given.count, given.seconds, given.seed, given.open)


if __name__ == "__main__":
    sys.exit(main())
