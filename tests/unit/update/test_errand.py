"""The daemon sends for the updater: as a service by leaving a wish, in a user's run by starting it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from signing import Device, Publisher

from edged.errors import Busy, Unavailable
from edged.update import wish
from edged.upkeep.errand import run_updater
from edged.upkeep.waker import Waker


class Service:
    """What systemd does when the wish appears: starts the updater, once."""

    def __init__(self, device: Device, environment: dict[str, str]) -> None:
        self._folder, self._environment = device.state / "update", environment

    async def watch(self) -> None:
        while not wish.waits(self._folder):  # noqa: ASYNC110  # a file tells nobody that it came
            await asyncio.sleep(0.05)
        command = [sys.executable, "-m", "edged", "update", "run"]
        done = await asyncio.create_subprocess_exec(*command, env=self._environment, stdout=subprocess.DEVNULL)
        await done.wait()


@pytest.fixture
def known(publisher: Publisher, device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The settings of the box, in the environment."""
    settings = tmp_path / "update.toml"
    settings.write_text(f'source = "{publisher.folder}"\nroot_file = "{device.root_file}"\nreserve_bytes = 0\n')
    found = {"EDGED_UPDATE_CONFIG": str(settings), "EDGED_STATE_DIR": str(device.state), "EDGED_MODEL": "nano"}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.mark.parametrize("by_service", [True, False])
async def test_an_errand_ends_with_the_updaters_last_word(
    publisher: Publisher, device: Device, models: list[Path], known: dict[str, str], by_service: bool
) -> None:
    publisher.release(models[1], "2.0", 2)
    waker = Waker(device.state, known, by_service=by_service)
    heard: list[dict[str, Any]] = []
    serving = asyncio.create_task(Service(device, dict(os.environ)).watch()) if by_service else None
    report = await run_updater(device.state / "update", waker, "apply", "nano", heard.append)
    assert (report.phase, report.version) == ("staged", "2.0")
    assert heard[-1]["phase"] == "staged"
    assert not wish.waits(device.state / "update")
    if serving is not None:
        await serving
    else:
        (publisher.folder / "metadata" / "timestamp.json").unlink()
        report = await run_updater(device.state / "update", waker, "check", "nano", heard.append)
        assert (report.phase, report.code) == ("failed", "unreachable")
    await waker.stop()


async def test_nobody_comes(device: Device) -> None:
    waker = Waker(device.state, {}, by_service=True)
    with pytest.raises(Busy, match="did not come"):
        await run_updater(device.state / "update", waker, "check", "nano", lambda _: None, silence_s=0.3)
    assert wish.take(device.state / "update") is None


async def test_an_updater_that_dies_is_not_waited_for(device: Device, known: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "update.toml").write_text("source = 1\n")
    waker = Waker(device.state, known | {"EDGED_STATE_DIR": "/proc/nowhere"}, by_service=False)
    with pytest.raises(Unavailable, match="without a word"):
        await run_updater(device.state / "update", waker, "check", "nano", lambda _: None)
