"""`python -m tests.fault.engine_deaths --count 100 --kinds KILL,SEGV,STOP,OOM`: end the engine mid-stream.

Each death must give its stream a typed error in time, the next request an answer, and leave no descriptor or child.
STOP is a hang: the front must notice it. OOM is the kernel's own kill, in a memory cgroup that has nothing left (needs
root). Times are of this machine as busy as it is.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from tests.fault.memory_group import MemoryGroup
from tests.fault.report import finish, parser, spread
from tests.integration.raw import Daemon, Peer, chat, children, descriptors

HANG_S = 2.0
GIVE_UP_S = 60.0


def run(kinds: list[str], count: int, seconds: float, within_s: float) -> int:
    """`count` deaths of each kind."""
    started_s = time.monotonic()
    failures: list[str] = []
    told: dict[str, list[float]] = {kind: [] for kind in kinds}
    back: list[float] = []
    with Daemon(ignore_eos=True, hang_floor_s=HANG_S, hang_factor=1) as daemon, Peer(daemon.endpoint) as peer:
        front = daemon.ready().pid
        daemon.status()
        before = len(descriptors(front))
        started_s = time.monotonic()
        for number in range(count * len(kinds)):
            if time.monotonic() - started_s > seconds:
                break
            kind = kinds[number % len(kinds)]
            mine = peer.send("generate", stream=True, prompt=f"death {number}", max_tokens=4000)
            pid = daemon.engine_pid()
            peer.until_event(mine, "delta")
            ended_s = time.monotonic()
            if kind == "OOM":
                _run_out_of_memory(pid, daemon.endpoint)
            else:
                os.kill(pid, getattr(signal, f"SIG{kind}"))
            code = peer.last(mine).get("code")
            told[kind].append(time.monotonic() - ended_s - (HANG_S if kind == "STOP" else 0))
            if code != "engine_lost":
                failures.append(f"death {number} by {kind}: {code}")
            if told[kind][-1] > within_s + (1.0 if kind == "STOP" else 0):
                failures.append(f"death {number} by {kind}: told after {told[kind][-1]:.2f} s")
            answer = peer.ask("chat", **chat("hello", max_tokens=1))
            back.append(time.monotonic() - ended_s)
            if answer["ev"] != "done":
                failures.append(f"after death {number}: {answer}")
        daemon.ready()
        time.sleep(0.5)
        after = len(descriptors(front))
        if after > before + 1:  # the status connection itself may or may not be there
            failures.append(f"descriptors grew from {before} to {after}")
        if len(children(front)) != 1:
            failures.append(f"children: {children(front)}")
        if daemon.process.poll() is not None or daemon.pid != front:
            failures.append("the front ended")
        if daemon.model()["engine"]["book_errors"]:
            failures.append("the memory books did not balance")
    return finish(
        "engine_deaths",
        started_s,
        failures,
        deaths={kind: len(times) for kind, times in told.items()},
        told_after={kind: spread(times) for kind, times in told.items()},
        answered_after=spread(back),
        descriptors=[before, after],
    )


def _run_out_of_memory(pid: int, endpoint: str) -> None:
    """The process may have no page more; then it is given a long prompt to read."""
    with MemoryGroup(0) as group, Peer(endpoint) as other:
        (group.folder / "cgroup.procs").write_text(str(pid))
        other.send("generate", prompt="hot and cold " * 800, max_tokens=1)
        give_up_s = time.monotonic() + GIVE_UP_S
        while not group.oom_kills():
            if time.monotonic() > give_up_s:
                raise TimeoutError("the kernel did not kill an engine that has no memory left")
            time.sleep(0.01)


def main() -> int:
    arguments = parser(__doc__ or "", count=100, seconds=3600)
    arguments.add_argument("--kinds", default="KILL,SEGV,STOP", help="signals, comma-separated")
    arguments.add_argument("--within-s", type=float, default=1.0, help="the typed error must come in this time")
    given = arguments.parse_args()
    return run(given.kinds.split(","), given.count, given.seconds, given.within_s)


if __name__ == "__main__":
    sys.exit(main())
