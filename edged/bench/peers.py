"""The two sides that are compared, each a process of its own: the bare loop, and a private daemon with a raw client."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq

from edged import children
from edged.errors import EdgedError
from edged.protocol.codec import pack, unpack_trusted

BARE = "edged.engine.backends.bare"
START_TIMEOUT_S = 900.0
REPLY_TIMEOUT_S = 600.0


class BenchError(EdgedError):
    """One of the two sides failed; the message has its own words."""


class BareLoop:
    """The bare loop's process."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._process = subprocess.Popen(
            children.command(BARE, str(folder), str(threads)),
            env=children.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.load_s: float = self._read()["load_s"]

    def run(self, do: str, **task: Any) -> dict[str, Any]:
        """One task; see edged.engine.backends.bare."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **task}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"the bare loop ended with status {self._process.wait()}; its words are above")
        result: dict[str, Any] = json.loads(line)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class PrivateDaemon:
    """A daemon on a socket of its own, with its state in `state` (kept: what it remembers of the box is used again)."""

    def __init__(self, model: str, state: Path, **settings: Any) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="edged-bench-")
        self.endpoint = f"ipc://{self._directory.name}/edged.sock"
        values = {"endpoint": self.endpoint, "state_dir": str(state), "model": model, "log_level": "warning"}
        environment = {f"EDGED_{name.upper()}": str(value) for name, value in {**values, **settings}.items()}
        self.started_s = time.perf_counter()
        self._process = subprocess.Popen(
            children.command("edged", "serve"), env=children.environment(**environment), stdin=subprocess.DEVNULL
        )

    def wait_ready(self) -> float:
        """Seconds from the start until the model is ready. Raises BenchError when it cannot be."""
        with Peer(self.endpoint) as peer:
            while True:
                if self._process.poll() is not None:
                    raise BenchError(f"the daemon ended with status {self._process.returncode}; its words are above")
                model = peer.status()["models"][0]
                if model["state"] == "ready":
                    return time.perf_counter() - self.started_s
                if model["state"] == "failed":
                    raise BenchError(f"the model cannot be loaded: {model['reason']}")
                if time.perf_counter() - self.started_s > START_TIMEOUT_S:
                    raise BenchError("the model was not ready in time")
                time.sleep(0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._directory.cleanup()


class Peer:
    """A DEALER that notes when each reply came."""

    def __init__(self, endpoint: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        self._last_id = 0

    def send(self, op: str, **fields: Any) -> int:
        """Send one request; returns its id."""
        self._last_id += 1
        self._socket.send(pack({"v": 1, "id": self._last_id, "op": op, **fields}))
        return self._last_id

    def replies(self, request: int, timeout_s: float = REPLY_TIMEOUT_S) -> Iterator[tuple[float, dict[str, Any]]]:
        """(time, reply) for one request until its last; replies to others are dropped."""
        while True:
            if not self._socket.poll(int(timeout_s * 1000)):
                raise BenchError(f"no reply within {timeout_s:.0f} s")
            reply = unpack_trusted(self._socket.recv())
            now_s = time.perf_counter()
            if reply["id"] != request:
                continue
            if reply["ev"] == "error":
                raise BenchError(f"{reply['code']}: {reply['message']}")
            yield now_s, reply
            if reply["ev"] in ("done", "result"):
                return

    def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """The last reply to one request."""
        *_, (_, last) = self.replies(self.send(op, **fields))
        return last

    def status(self) -> dict[str, Any]:
        return self.call("status")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()
