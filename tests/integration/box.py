"""Devices with a daemon that serves nano as it shipped, and a publisher whose releases of nano differ as told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edged.client import Client
from edged.store.slots import Slots
from edged.update import hold
from edged.update.bundle import Golden
from tests.integration.raw import PATIENCE_S, Daemon, nano_folder
from tests.unit.update.signing import Device, Publisher

PROMPTS = ("set the lab fan to 40 percent", "switch on the kitchen lamp")
LENIENT: dict[str, Any] = {
    "ignore_eos": True,
    "update_least_speed": 0.01,
    "update_watch_s": 0.5,
    "update_watch_requests": 0,
}
"""For a machine that does other work meanwhile: no verdict about speed, a short watch, and answers of known length."""


def variant(base: Path, name: str, *, damaged: bool = False) -> Path:
    """The nano model as a version of its own: other bytes, and the same answers unless damaged."""
    folder = base / name
    shutil.copytree(nano_folder(), folder)
    (folder / "README.md").write_text(f"variant {name}\n")
    if damaged:
        weights = bytearray((folder / "model.onnx.data").read_bytes())
        third = len(weights) // 3
        weights[third : 2 * third] = weights[third : 2 * third][::-1]
        (folder / "model.onnx.data").write_bytes(weights)
    return folder


def record(daemon: Daemon) -> tuple[Golden, ...]:
    """What its model says to the golden prompts."""
    with Client(daemon.endpoint) as client:
        said = [(prompt, client.chat(prompt, max_tokens=24).text) for prompt in PROMPTS]
    return tuple(Golden(prompt=prompt, max_tokens=24, answer=text) for prompt, text in said)


class FleetDevice:
    """One box of a fleet. Owns its daemon; a context manager that ends it."""

    def __init__(self, base: Path, source: str, anchor: bytes, device_id: str = "device-1") -> None:
        base.mkdir(exist_ok=True)
        self.base = base
        self.state = base / "state"
        self.slots = Slots(self.state, "nano")
        self.running: Daemon | None = None
        self._client: Client | None = None
        (base / "root.json").write_bytes(anchor)
        (base / "update.toml").write_text(
            f'source = "{source}"\nroot_file = "{base}/root.json"\nreserve_bytes = 0\ndevice_id = "{device_id}"\n'
        )

    def begin(self, **settings: Any) -> Daemon:
        """(Re)starts the daemon with these settings."""
        self.stop()
        known = {"EDGED_UPDATE_CONFIG": str(self.base / "update.toml")}
        self.running = Daemon(Path("nano"), environment=known, state_dir=str(self.state), **(LENIENT | settings))
        return self.running

    def client(self, **settings: Any) -> Client:
        """(Re)starts the daemon with these settings and waits for its model."""
        self._client = Client(self.begin(**settings).ready().endpoint, timeout_s=PATIENCE_S)
        return self._client

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    def edged(self, *words: str) -> str:
        """What a command says that is typed on this box."""
        known = {"EDGED_UPDATE_CONFIG": str(self.base / "update.toml"), "EDGED_STATE_DIR": str(self.state)}
        command = [sys.executable, "-m", "edged", *words]
        environment = {**os.environ, **known}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout

    def log(self) -> str:
        assert self.running is not None
        return self.running.log()

    def stop(self) -> None:
        """The daemon drains and ends."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self.running is not None:
            assert self.running.terminate(signal.SIGTERM) == 0
            self.running.close()
            self.running = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._client is not None:
            self._client.close()
        if self.running is not None:
            if kind is not None:
                print(f"---- daemon log\n{self.running.log()[-6000:]}")
            self.running.close()


class Box(FleetDevice):
    """A device and its publisher in one."""

    def __init__(self, base: Path, golden: tuple[Golden, ...]) -> None:
        self.golden = golden
        self.publisher = Publisher(base / "fleet")
        super().__init__(base, str(self.publisher.folder), self.publisher.anchor)

    def publish(self, version: str, number: int, *, damaged: bool = False, **more: Any) -> None:
        """A release with golden prompts that the model as shipped answers rightly."""
        folder = variant(self.base, version, damaged=damaged)
        self.publisher.release(folder, version, number, **{"golden": self.golden, **more})

    def stage(self) -> None:
        """The updater's part alone, as a run of the timer does it, whatever the hold switch says."""
        device = Device(self.base, self.publisher, reserve_bytes=0)
        held = hold.held(self.state / "update")
        hold.release(self.state / "update")
        assert device.update().phase == "staged"
        if held:
            hold.hold(self.state / "update", held)
