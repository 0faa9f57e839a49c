"""A daemon started as a process of its own, and a minimal raw pyzmq peer: what a client in any language would do."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgpack
import zmq

from edged.protocol.pulse import Beat, PulseReader

ROOT = Path(__file__).resolve().parents[2]
SLOWNESS = float(os.environ.get("EDGED_TEST_SLOWNESS", "1"))  # how many times slower than natively: emulation
PATIENCE_S = 60.0 * SLOWNESS  # how long a slow, busy machine may take; a bound for failures, not a measure
LAST = ("done", "result", "error")


def nano_folder() -> Path:
    """The model that ships with edged; EDGED_TEST_MODEL names another."""
    named = os.environ.get("EDGED_TEST_MODEL")
    folder = Path(named) if named else ROOT / "models" / "nano"
    assert (folder / "genai_config.json").is_file(), f"{folder} holds no model; set EDGED_TEST_MODEL"
    return folder


class Daemon:
    """One `edged serve` on a socket of its own. Settings are keyword arguments; a context manager."""

    def __init__(
        self,
        model: Path | None = None,
        *,
        directory: Path | None = None,
        environment: dict[str, str] | None = None,
        under: Sequence[str] = (),
        inherited: Sequence[int] = (),
        **settings: Any,
    ) -> None:
        self._own_directory = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="edged-t-", dir="/tmp"))
        self.socket = self.directory / "s" / "edged.sock"
        self.endpoint = f"ipc://{self.socket}"
        self.log_path = self.directory / f"log-{time.monotonic_ns()}"
        self.settings: dict[str, Any] = {
            "endpoint": self.endpoint,
            "state_dir": str(self.directory / "state"),
            "model": str(model or nano_folder()),
            "provider": "cpu",  # asks for nothing that must be proved first, so that starts are short
            "threads": 1,
            "kv_memory_bytes": 256 * 2**20,
            "memory_reserve_bytes": 64 * 2**20,
            "memory_reserve_fraction": 0.0,
            "hang_floor_s": 10.0 * SLOWNESS,
        }
        if SLOWNESS > 1:  # an emulator's own memory is counted as the process's
            slow = {"load_timeout_s": 600.0 * SLOWNESS, "drain_s": 30.0 * SLOWNESS}
            self.settings |= {"front_memory_bytes": 2**30, **slow}
        self.settings |= settings
        self.write_settings()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGED_", "XDG_", "NOTIFY"))}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "edged", "serve", "--config", str(self.directory / "edged.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=inherited,
                cwd=ROOT,
                env=kept | {"HOME": str(self.directory), "ORT_DISABLE_TELEMETRY": "1"} | (environment or {}),
            )

    def write_settings(self, **changed: Any) -> None:
        """Change settings in the file; a SIGHUP makes the daemon read it."""
        self.settings |= changed
        lines = [f"{name} = {_toml(value)}" for name, value in self.settings.items()]
        (self.directory / "edged.toml").write_text("\n".join(lines) + "\n")

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            print(f"---- daemon log\n{self.log()[-6000:]}")
        self.close()

    def close(self) -> None:
        """Kill what is left and take the directory away."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def pid(self) -> int:
        return self.process.pid

    def status(self) -> dict[str, Any]:
        """The answer to `status`, over a fresh connection."""
        with Peer(self.endpoint, zmq.REQ) as peer:
            return peer.ask("status")

    def model(self) -> dict[str, Any]:
        found: dict[str, Any] = self.status()["models"][0]
        return found

    def ready(self) -> Daemon:
        """Wait until the model answers."""
        self.until(lambda: self.model()["state"] == "ready", "the model to be ready")
        return self

    def engine_pid(self) -> int:
        """The pid of the engine that serves now."""
        self.ready()
        return int(self.model()["pid"])

    def until(self, true: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S) -> Any:
        """Wait for a condition; fails with the log when the daemon ends or it takes too long."""
        return until(true, what, timeout_s, alive=self.process)

    def terminate(self, signal_: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(signal_)
        return self.process.wait(PATIENCE_S)


class Peer:
    """A client's socket and nothing else: maps in, maps out."""

    _ids = itertools.count(1)

    def __init__(self, endpoint: str, kind: int = zmq.DEALER, **options: Any) -> None:
        self._context = zmq.Context.instance()
        self.socket = self._context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(endpoint)
        self.early: list[dict[str, Any]] = []

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, op: str, **fields: Any) -> int | str:
        """One request; returns its id."""
        message = {"v": 1, "id": next(self._ids), "op": op} | fields
        self.socket.send(msgpack.packb(message))
        made: int | str = message["id"]
        return made

    def send_frames(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def receive_frames(self, timeout_s: float = PATIENCE_S) -> list[bytes]:
        assert self.socket.poll(int(timeout_s * 1000)), f"no reply within {timeout_s} s"
        return self.socket.recv_multipart()

    def receive(self, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next reply, whatever it answers."""
        frames = self.receive_frames(timeout_s)
        reply: dict[str, Any] = msgpack.unpackb(frames[-1] if len(frames) > 1 else frames[0])
        assert reply["v"] == 1
        return reply

    def events(self, request_id: int | str | None, timeout_s: float = PATIENCE_S) -> Iterator[dict[str, Any]]:
        """Replies to one request up to its last; others are kept for later."""
        for reply in [reply for reply in self.early if reply["id"] == request_id]:
            self.early.remove(reply)
            yield reply
            if reply["ev"] in LAST:
                return
        while True:
            reply = self.receive(timeout_s)
            if reply["id"] != request_id:
                self.early.append(reply)
                continue
            yield reply
            if reply["ev"] in LAST:
                return

    def until_event(self, request_id: int | str, event: str) -> dict[str, Any]:
        """Read until a certain event of a request."""
        for reply in self.events(request_id):
            if reply["ev"] == event:
                return reply
        raise AssertionError(f"no {event} before the last reply")

    def last(self, request_id: int | str | None, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The last reply to a request."""
        return list(self.events(request_id, timeout_s))[-1]

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request and its last reply."""
        return self.last(self.send(op, **fields))

    def quiet(self, timeout_s: float = 0.3) -> bool:
        """Whether nothing comes for a while."""
        return not self.early and not self.socket.poll(int(timeout_s * 1000))


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """Fields of a one-turn chat."""
    return {"messages": [{"role": "user", "content": text}], **fields}


def text_of(events: list[dict[str, Any]]) -> str:
    """The streamed text."""
    return "".join(event["text"] for event in events if event["ev"] == "delta")


def until(true: Callable[[], Any], what: str, timeout_s: float = PATIENCE_S, alive: Any = None) -> Any:
    """Wait for a condition."""
    end_s = time.monotonic() + timeout_s
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < end_s, f"waited {timeout_s} s for {what}"
        assert alive is None or alive.poll() is None, f"the daemon ended with {alive.returncode} before {what}"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`, zombies included."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError, IndexError, ValueError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(folder.name))
    return found


def running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def descriptors(pid: int) -> list[str]:
    """What a process has open."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(fd))
    return found


def kill_in_native_call(engine_pid: int) -> bool:
    """Kill an engine while it is inside a native call, as its own pulse tells; False when it was not in one."""
    os.kill(engine_pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{engine_pid}/stat").read_text().rpartition(")")[2].split()[0] in "TZ", "it to stop")
    rid = beat_of(engine_pid).rid
    os.kill(engine_pid, signal.SIGKILL if rid else signal.SIGCONT)
    return bool(rid)


def beat_of(engine_pid: int) -> Beat:
    """What an engine last said on its pulse."""
    for link in Path(f"/proc/{engine_pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # opened and closed while we look
            if "edged-pulse" in os.readlink(link):
                fd = os.open(link, os.O_RDONLY)
                reader = PulseReader(fd)
                beat = reader.read()
                reader.close()
                os.close(fd)
                return beat
    raise AssertionError("this process has no pulse: it is no engine")


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
