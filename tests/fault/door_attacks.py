"""`python -m tests.fault.door_attacks --only multipart --hogs 4`: clients that mean harm, at the front's own door.

Each attack runs against a fresh daemon, which must live, keep its memory, serve again within a second, and give back
its descriptors; `--hogs` keeps the processors busy beside it. Clients that do not read or vanish have their own
commands (slow_readers, vanishing_clients).
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import zmq

from edged.daemon import LEAST_DESCRIPTORS
from tests.fault.fuzz_zmtp import FRAMES, GREETING, ready
from tests.fault.report import finish, many_descriptors, parser
from tests.integration.raw import Daemon, Peer, descriptors, rss_bytes, until

ENDLESS = (b"\x01\xff" + b"x" * 255) * 256, b"\x03" + (2**20).to_bytes(8, "big") + b"y" * 2**20
FRONT_MB = 256
SERVING_AGAIN_S = 1.0


@dataclass
class Watch:
    """The front's peak memory, sampled by a thread while an attack runs."""

    pid: int
    peak_bytes: int = 0
    before_bytes: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.over.wait(0.01):
            with contextlib.suppress(OSError):
                self.peak_bytes = max(self.peak_bytes, rss_bytes(self.pid))


@contextlib.contextmanager
def watched(daemon: Daemon) -> Iterator[Watch]:
    """Sample until the block ends."""
    watch = Watch(daemon.pid, before_bytes=rss_bytes(daemon.pid))
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield watch
    finally:
        watch.over.set()
        thread.join()


def endless_multipart(daemon: Daemon, count: int, seconds: float) -> dict[str, Any]:
    """`count` connections that send frames of one message for ever, small ones or large.

    Some say `ping` first, some end a message now and then.
    """
    end_s = time.monotonic() + seconds
    sent = [0] * count

    def flood(number: int) -> None:
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as raw:
                raw.settimeout(2)
                raw.connect(str(daemon.socket))
                raw.sendall(GREETING + ready())
                raw.recv(64)
                if number % 3 == 2:
                    raw.sendall(FRAMES[0])
                while time.monotonic() < end_s:
                    raw.sendall(ENDLESS[number % 2])
                    sent[number] += len(ENDLESS[number % 2])
                    if number % 4 == 3 and sent[number] % 50 == 0:
                        raw.sendall(b"\x00\x01x")

    threads = [threading.Thread(target=flood, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"sent_mb": sum(sent) >> 20, "connections": count}


def half_open(daemon: Daemon, count: int, seconds: float) -> dict[str, Any]:
    """`count` sockets that connect and never say a word, or half a greeting."""
    held, refused = [], 0
    for number in range(count):
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(5)
        try:
            raw.connect(str(daemon.socket))
            if number % 2:
                raw.send(GREETING[: number % 64])
        except OSError:
            refused += 1
        held.append(raw)
    figures = {"connects": count, "refused": refused, "descriptors_at_peak": len(descriptors(daemon.pid))}
    for raw in held:
        raw.close()
    return figures


CONNECTS = """
import socket, sys, time
end_s, held, count = time.monotonic() + float(sys.argv[2]), [], 0
while time.monotonic() < end_s:
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(1)
    try:
        raw.connect(sys.argv[1])
    except OSError:
        continue
    held.append(raw)
    count += 1
    if len(held) > 900:
        for raw in held:
            raw.close()
        held.clear()
print(count)
"""


def connects(daemon: Daemon, count: int, seconds: float) -> dict[str, Any]:
    """`count` processes that connect as fast as they can, hold what they got, and let go of it now and then."""
    command = [sys.executable, "-c", CONNECTS, str(daemon.socket), str(seconds)]
    floods = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    most = 0
    while any(flood.poll() is None for flood in floods):
        with contextlib.suppress(OSError):
            most = max(most, len(descriptors(daemon.pid)))
        time.sleep(0.01)
    made = sum(int(flood.communicate()[0]) for flood in floods)
    return {"processes": count, "connects": made, "descriptors_at_peak": most}


def duplicate_ids(daemon: Daemon, count: int, seconds: float) -> dict[str, Any]:
    """`count` impostors under the routing id of a client with a stream; none may see a byte of it."""
    with Peer(daemon.endpoint, ROUTING_ID=b"honest") as honest:
        mine = honest.send("generate", stream=True, prompt="on and on", max_tokens=3000)
        honest.until_event(mine, "accepted")
        impostors = [Peer(daemon.endpoint, ROUTING_ID=b"honest") for _ in range(count)]
        for impostor in impostors:
            impostor.send("ping")
        done = honest.last(mine)
        assert done["ev"] == "done", done
        stolen = sum(not impostor.quiet(0.0) for impostor in impostors)
        for impostor in impostors:
            impostor.close()
    assert not stolen, f"{stolen} impostors were answered"
    return {"impostors": count, "answered": stolen}


ATTACKS: dict[str, tuple[Callable[[Daemon, int, float], dict[str, Any]], int, int]] = {
    # name: what, how many, how many MB the front may grow
    "multipart": (endless_multipart, 6, FRONT_MB),
    "half-open": (half_open, 8000, 64),
    "descriptors": (connects, 4, 64),
    "duplicates": (duplicate_ids, 100, 32),
}


def attack(name: str, share: float, seconds: float, failures: list[str]) -> dict[str, Any]:
    """One attack on a fresh daemon; what was seen."""
    what, count, growth_mb = ATTACKS[name]
    limit = ["prlimit", f"--nofile={LEAST_DESCRIPTORS}"] if name == "descriptors" else []
    with Daemon(ignore_eos=True, under=limit) as daemon:
        daemon.engine_pid()
        opened = len(descriptors(daemon.pid))
        with watched(daemon) as watch:
            try:
                seen = what(daemon, max(1, int(count * share)), seconds)
            except (AssertionError, OSError) as error:
                failures.append(f"{name}: {error}")
                seen = {}
        fds_at_peak = seen.get("descriptors_at_peak", 0)
        if name == "descriptors" and fds_at_peak > LEAST_DESCRIPTORS - 32:
            failures.append(f"{name}: {fds_at_peak} of {LEAST_DESCRIPTORS} descriptors were open")
        again_s = _serving_again_s(daemon, failures, name)
        grown_mb = (watch.peak_bytes - (0 if name == "multipart" else watch.before_bytes)) >> 20
        if grown_mb > growth_mb:
            failures.append(f"{name}: the front took {grown_mb} MB, the bar is {growth_mb}")
        with contextlib.suppress(AssertionError):
            until(lambda: len(descriptors(daemon.pid)) <= opened + 2, "descriptors to be given back", 15)
        if daemon.process.poll() is not None:
            failures.append(f"{name}: the daemon ended with {daemon.process.returncode}: {daemon.log()[-1500:]}")
        elif len(descriptors(daemon.pid)) > opened + 2:
            failures.append(f"{name}: descriptors grew from {opened} to {len(descriptors(daemon.pid))}")
        if "Traceback" in daemon.log():
            failures.append(f"{name}: {daemon.log()[-1500:]}")
        return {**seen, "peak_mb": watch.peak_bytes >> 20, "before_mb": watch.before_bytes >> 20, "again_s": again_s}


def _serving_again_s(daemon: Daemon, failures: list[str], name: str) -> float | None:
    started_s = time.monotonic()
    try:
        with Peer(daemon.endpoint, zmq.REQ) as peer:
            peer.send("ping")
            assert peer.receive(30)["ev"] == "result"
    except AssertionError as error:
        failures.append(f"{name}: not serving again: {error}")
        return None
    took_s = round(time.monotonic() - started_s, 3)
    if took_s > SERVING_AGAIN_S:
        failures.append(f"{name}: serving again after {took_s} s, the bar is {SERVING_AGAIN_S}")
    return took_s


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """A machine that is busy with something else."""
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.wait()


def main() -> int:
    arguments = parser(__doc__ or "", seconds=60)
    arguments.add_argument("--only", default=",".join(ATTACKS), help="attacks, with commas between")
    arguments.add_argument("--count", type=float, default=100, help="per cent of each attack's own number")
    arguments.add_argument("--hogs", type=int, default=0, help="processes that only use up processor time")
    given = arguments.parse_args()
    many_descriptors()
    started_s, failures = time.monotonic(), list[str]()
    with hogs(given.hogs):
        seen = {name: attack(name, given.count / 100, given.seconds, failures) for name in given.only.split(",")}
    return finish("door_attacks", started_s, failures, hogs=given.hogs, attacks=seen)


if __name__ == "__main__":
    sys.exit(main())
