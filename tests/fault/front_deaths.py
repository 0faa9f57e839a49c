"""`python -m tests.fault.front_deaths --count 100`: kill the front mid-stream again and again, and start it anew.

Each time its engine must die with it, what is left of it be no hindrance and not pile up, and a client that was
connected go on by itself with the next one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.fault.report import finish, parser, spread
from tests.integration.raw import Daemon, Peer, chat, running, until

GONE_S = 1.0


def run(count: int, seconds: float) -> int:
    """`count` deaths of the front in at most `seconds`."""
    started_s = time.monotonic()
    failures: list[str] = []
    gone: list[float] = []
    ready: list[float] = []
    with tempfile.TemporaryDirectory(prefix="edged-f-", dir="/tmp") as folder:
        directory = Path(folder)
        socket = directory / "s/edged.sock"
        with Peer(f"ipc://{socket}") as client:
            for number in range(count):
                if time.monotonic() - started_s > seconds or len(failures) > 10:
                    break
                begun_s = time.monotonic()
                with Daemon(directory=directory, ignore_eos=True) as daemon:
                    engine = daemon.engine_pid()
                    ready.append(time.monotonic() - begun_s)
                    if client.ask("chat", **chat("hello", max_tokens=1))["ev"] != "done":
                        failures.append(f"death {number}: the client that stayed was not answered")
                    mine = client.send("generate", stream=True, prompt=f"death {number}", max_tokens=3000)
                    client.until_event(mine, "delta")
                    daemon.process.kill()
                    killed_s = time.monotonic()
                    until(lambda pid=engine: not running(pid), "the engine to die with its front", 30)
                    gone.append(time.monotonic() - killed_s)
                    if gone[-1] > GONE_S:
                        failures.append(f"death {number}: the engine lived on for {gone[-1]:.2f} s")
                    while not client.quiet(0.0):  # what was on its way
                        client.receive()
        left = sorted(path.name for path in (directory / "s").iterdir())
        if len(left) > 3:  # the lock, the socket, the last one's channel
            failures.append(f"left behind: {left[:10]}")
    return finish(
        "front_deaths", started_s, failures, deaths=len(gone), engine_gone_after=spread(gone), ready_after=spread(ready)
    )


def main() -> int:
    given = parser(__doc__ or "", count=100, seconds=1800).parse_args()
    return run(given.count, given.seconds)


if __name__ == "__main__":
    sys.exit(main())
