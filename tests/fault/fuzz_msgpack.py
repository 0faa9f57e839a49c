"""`python -m tests.fault.fuzz_msgpack --count 2000000`: mutated request maps, read by the front's own code and, one in
`--wire-every`, sent to a real daemon, which must answer each exactly once and serve on.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgpack
import zmq

from edged.errors import RequestError
from edged.protocol.codec import pack
from edged.protocol.limits import WireLimits
from edged.protocol.messages import error_fields, reply
from edged.serving.validate import Refused, input_digest, read_request
from tests.fault.report import finish, parser
from tests.integration.raw import LAST, Daemon, Peer, descriptors

BATCH = 200
SEEDS: list[dict[str, Any]] = [
    {"v": 1, "id": 1, "op": "ping"},
    {"v": 1, "id": "status-1", "op": "status"},
    {"v": 1, "id": 2**40, "op": "tokenize", "text": "wärme 🌡 <|end|>"},
    {"v": 1, "id": -5, "op": "cancel", "target": "x"},
    {"v": 1, "id": 3, "op": "session.close", "session": "s"},
    {
        "v": 1, "id": 4, "op": "chat", "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "stop": ["a", "b"],
        "messages": [{"role": "system", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "y"}]}],
    },
    {"v": 1, "id": 5, "op": "generate", "prompt": "hot", "max_tokens": 1, "seed": 7, "deadline_ms": 5000},
    {"v": 1, "id": 6, "op": "chat", "messages": [{"role": "user", "content": [{"type": "image", "frame": 0}]}]},
]  # fmt: skip
PACKED = [msgpack.packb(seed) for seed in SEEDS]
STRANGE = [
    *(b"\xc1", b"\xc0", b"\x80", b"\x90", b"\x91" * 40, b"\xa3\xff\xfe\xfd"),  # reserved, nil, empty, deep, not UTF-8
    *(b"\xd4\x01x", b"\xd6\xff\0\0\0\1"),  # an ext type, a timestamp
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\x00\x10\x00\x00", b"\xdb\xff\xff\xff\xff"),  # lengths that are not there
    *(b"\xcb\x7f\xf8\0\0\0\0\0\0", b"\xcf" + b"\xff" * 8),  # NaN, 2^64 - 1
]


def mutants(seed: int) -> Iterator[bytes]:
    """Endless mutated requests: bits flipped, bytes cut, doubled and replaced, maps spliced."""
    chance = random.Random(seed)
    while True:
        data = bytearray(chance.choice(PACKED))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(7):
                case 0 if data:
                    data[at % len(data)] ^= 1 << chance.randrange(8)
                case 1 if data:
                    data[at % len(data)] = chance.randrange(256)
                case 2:
                    del data[at : at + chance.randrange(1, 9)]
                case 3:
                    data[at:at] = chance.randbytes(chance.randrange(1, 9))
                case 4:
                    data[at:at] = chance.choice(STRANGE)
                case 5:
                    data[at:at] = data[at : at + chance.randrange(64)]
                case _:
                    data[at:] = chance.choice(PACKED)[at:]
        yield bytes(data)


def read_one(data: bytes, limits: WireLimits) -> str:
    """What the front makes of a frame: the op, or the error code. Raises what is a bug."""
    attached = [zmq.Frame(b"attached")] if b"frame" in data or b"image" in data else []
    read = read_request([zmq.Frame(data), *attached], limits, single_reply=False)
    if isinstance(read, Refused):
        error: RequestError = read.error
        assert len(error.message) < 2000
        pack(reply(read.id, "error", **error_fields(error)))
        return error.code
    input_digest(*read)
    return read[0].op


def run(count: int, seconds: float, wire_every: int, seed: int) -> int:
    """`count` mutants in at most `seconds`."""
    started_s = time.monotonic()
    failures: list[str] = []
    kinds: dict[str, int] = {}
    limits, done, wired, answered = WireLimits(), 0, 0, 0
    with Daemon(default_max_tokens=2, max_requests_per_client=BATCH) as daemon, Peer(daemon.endpoint) as peer:
        before = len(descriptors(daemon.ready().pid))
        batch: list[bytes] = []
        for data in mutants(seed):
            if done >= count or time.monotonic() - started_s > seconds or len(failures) >= 20:
                break
            done += 1
            try:
                kind = read_one(data, limits)
                kinds[kind] = kinds.get(kind, 0) + 1
            except Exception as error:
                failures.append(f"{error!r} for {data.hex()}")
            if done % wire_every == 0:
                batch.append(data)
            if len(batch) == BATCH:
                wired += BATCH
                answered += _send_all(peer, batch, failures)
                batch.clear()
        internal = daemon.status()["front"]["counts"].get("error.internal", 0)
        if internal:
            failures.append(f"{internal} internal errors: {daemon.log()[-1000:]}")
        if daemon.model()["restarts"]:
            failures.append("the engine ended")
        if len(descriptors(daemon.pid)) > before + 2:
            failures.append("descriptors leaked")
    return finish(
        "fuzz_msgpack", started_s, failures, mutants=done, kinds=kinds, sent=wired, answered=answered, seed=seed
    )


def _send_all(peer: Peer, batch: list[bytes], failures: list[str]) -> int:
    for data in batch:
        peer.send_frames(data)
    left = len(batch)
    try:
        while left:
            left -= peer.receive(30)["ev"] in LAST
        if not peer.quiet(0):
            failures.append(f"more replies than requests: {peer.receive()}")
    except AssertionError as error:
        failures.append(f"{left} of {len(batch)} not answered: {error}; first {batch[0].hex()}")
    return len(batch) - left


def main() -> int:
    arguments = parser(__doc__ or "", count=2_000_000, seconds=3600)
    arguments.add_argument("--wire-every", type=int, default=20, help="one in this many goes to a real daemon")
    arguments.add_argument("--seed", type=int, default=1, help="of the mutations")
    given = arguments.parse_args()
    return run(given.count, given.seconds, given.wire_every, given.seed)


if __name__ == "__main__":
    sys.exit(main())
