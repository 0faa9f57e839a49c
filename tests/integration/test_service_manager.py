"""What the daemon tells the service manager, read from a real notify socket; and a load that never ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.client import Client
from tests.integration.raw import ROOT, Daemon, beat_of, children, running, until


class Manager:
    """The other end of NOTIFY_SOCKET; remembers every line."""

    def __init__(self, folder: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"{folder}/notify")
        self._socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": f"{folder}/notify", "WATCHDOG_USEC": "1000000"}
        self.lines: list[str] = []

    def heard(self, start: str) -> str:
        """The newest line that begins so, "" when there is none."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.lines += self._socket.recv(65536).decode().splitlines()
        return next((line for line in reversed(self.lines) if line.startswith(start)), "")

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    with tempfile.TemporaryDirectory(prefix="edged-n-", dir="/tmp") as folder:
        made = Manager(folder)
        yield made
        made.close()


def test_a_service_manager_hears_of_the_whole_life(manager: Manager) -> None:
    with Daemon(environment=manager.environment) as daemon:
        daemon.until(lambda: manager.heard("READY=1"), "READY")
        before = manager.lines[: manager.lines.index("READY=1")]
        assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in before)
        assert any(line.startswith("STATUS=model nano loading") for line in before)
        assert daemon.model()["state"] == "ready"
        daemon.until(lambda: manager.heard("STATUS=model nano ready"), "the status")
        manager.lines.clear()
        daemon.until(
            lambda: manager.heard("WATCHDOG=1") and manager.lines.count("WATCHDOG=1") >= 3, "the watchdog's food"
        )
        os.kill(daemon.engine_pid(), signal.SIGKILL)  # recovered from in time: the watchdog gets its food all along
        manager.lines.clear()
        daemon.until(lambda: manager.heard("WATCHDOG=1"), "its food after a death")
        assert daemon.terminate() == 0
        assert manager.heard("STOPPING=1")


def test_a_broken_model_is_ready_and_degraded(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "genai_config.json").write_text("{}")
    with Daemon(tmp_path, environment=manager.environment) as daemon:
        daemon.until(lambda: manager.heard("READY=1"), "READY")
        daemon.until(lambda: manager.heard("STATUS=degraded: model"), "the reason")
        assert "genai_config.json" in manager.heard("STATUS=degraded")
        assert daemon.process.poll() is None


def test_an_engine_that_hangs_while_it_loads_is_killed_within_the_announced_time(manager: Manager) -> None:
    with Daemon(environment=manager.environment, load_timeout_s=1) as daemon:
        (engine,) = daemon.until(lambda: children(daemon.pid), "the engine")

        def stopped_while_loading() -> bool:
            if "edged.engine" not in Path(f"/proc/{engine}/cmdline").read_text() or not beat_of(engine).sequence:
                return False
            os.kill(engine, signal.SIGSTOP)
            return True

        daemon.until(stopped_while_loading, "its first beat")
        assert not manager.heard("READY=1"), "it was ready before it could be stopped"
        daemon.until(lambda: not running(engine), "it to be killed", 20)
        assert "not loaded within load_timeout_s = 1 s" in daemon.log()
        daemon.until(lambda: manager.heard("READY=1"), "READY all the same")
        until(lambda: daemon.model()["restarts"] == 1, "the restart to be counted")


def test_a_socket_that_systemd_listens_on_is_taken_over(tmp_path: Path) -> None:
    """As systemd hands it over: descriptor 3, and words in the environment, which name the process."""
    state = str(tmp_path / "state")
    made = [sys.executable, "-m", "edged", "keys", "new", "lab", "--out", str(tmp_path / "lab.key")]
    subprocess.run(made, check=True, env=os.environ | {"EDGED_STATE_DIR": state, "EDGED_CONFIG": "/nowhere"}, cwd=ROOT)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        handing = f"import os, sys; os.dup2({listening.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); " + (
            "os.environ['LISTEN_FDS'] = '1'; os.execv(sys.argv[1], sys.argv[1:])"
        )
        os.set_inheritable(listening.fileno(), True)
        with Daemon(
            under=[sys.executable, "-c", handing],
            inherited=[listening.fileno()],
            state_dir=state,
            tcp_endpoint="tcp://192.0.2.1:5577",  # an address this box does not have: it cannot be bound here
        ) as daemon:
            daemon.ready()
            listening.close()
            with Client(f"tcp://127.0.0.1:{port}", key=tmp_path / "lab.key") as client:
                assert client.chat("hello", max_tokens=2).text
            assert daemon.terminate() == 0
