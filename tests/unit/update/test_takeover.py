"""A new version proves itself in a real engine, or the old one serves on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from engine_host import RealEngine, RealHost
from signing import Device, Publisher

from edged.store.journal import refused, uncommitted
from edged.update.bundle import Golden, Needs
from edged.update.health import Limits, Vitals
from edged.update.starts import MOST_FAILED, Starts
from edged.update.takeover import Takeover

LIMITS = Limits(load_s=60, answer_s=30, least_speed=0.01, watch_s=0.2, watch_requests=1, watch_most_s=1)
PROMPTS = ("one two three", "the lamp is")


@pytest.fixture
async def host(device: Device, models: list[Path]) -> AsyncIterator[RealHost]:
    """The device's release 1 serves in a real engine."""
    made = RealHost(device.state, models[0])
    await made.restore(device.slots.path("1.0"))
    yield made
    await made.close()


async def recorded(folder: Path, state: Path) -> tuple[Golden, ...]:
    """Golden prompts as a publisher records them: from the model itself."""
    reference = RealHost(state, folder)
    await reference.restore(folder)
    assert reference.engine is not None
    answers = []
    for prompt in PROMPTS:
        golden = Golden(prompt=prompt, max_tokens=12, answer="")
        said = await reference.engine.ask(golden)
        answers.append(golden.model_copy(update={"answer": said.text}))
    await reference.close()
    return tuple(answers)


class Story:
    """A device, its host, and what the takeover told."""

    def __init__(self, device: Device, host: RealHost, limits: Limits = LIMITS) -> None:
        self.device, self.host = device, host
        self.told: list[str] = []
        self.watching = asyncio.Event()
        self.takeover = Takeover(device.slots, host, limits, self._tell)

    def _tell(self, phase: str, _version: str, _detail: str) -> None:
        self.told.append(phase)
        if phase == "watching":
            self.watching.set()

    def serves(self) -> str:
        assert self.host.engine is not None
        return self.host.engine.folder.name


@pytest.mark.parametrize("fits", [True, False], ids=["beside", "instead"])
async def test_a_good_version_is_tested_and_taken(
    publisher: Publisher, device: Device, models: list[Path], host: RealHost, fits: bool
) -> None:
    golden = await recorded(models[1], device.state)
    assert golden[0].answer
    publisher.release(models[1], "2.0", 2, golden=golden, needs=Needs(memory_bytes=2**30))
    assert device.update().phase == "staged"
    host.room_bytes = 2**40 if fits else 0
    story = Story(device, host)
    outcome = await story.takeover.take("2.0")
    assert outcome.taken, outcome
    assert story.told == ["testing", "activating", "watching", "committed"]
    assert (device.slots.active, device.slots.previous, story.serves()) == ("2.0", "1.0", "2.0")
    assert host.unloads == (1 if fits else 2)  # one was the fixture's
    assert uncommitted(device.slots.journal.read()) is None


@pytest.mark.parametrize("fits", [True, False], ids=["beside", "instead"])
async def test_a_version_that_answers_wrongly_is_refused_and_the_old_one_serves(
    publisher: Publisher, device: Device, models: list[Path], host: RealHost, fits: bool
) -> None:
    golden = await recorded(models[1], device.state)
    publisher.release(models[2], "2.0", 2, golden=golden, needs=Needs(memory_bytes=2**30))
    assert device.update().phase == "staged"
    host.room_bytes = 2**40 if fits else 0
    story = Story(device, host)
    outcome = await story.takeover.take("2.0")
    assert not outcome.taken
    assert "golden prompt" in outcome.reason
    assert (device.slots.active, story.serves()) == ("1.0", "1.0")
    assert device.slots.versions() == ("1.0",)
    assert device.update().passed[0]["detail"] == outcome.reason


async def test_too_slow_or_too_hungry(publisher: Publisher, device: Device, models: list[Path], host: RealHost) -> None:
    publisher.release(models[1], "2.0", 2)
    assert device.update().phase == "staged"
    story = Story(device, host, Limits(least_speed=1000.0, answer_s=60))
    assert "tokens/s" in (await story.takeover.take("2.0")).reason
    publisher.release(models[1], "2.1", 3, needs=Needs(memory_bytes=1000))
    assert device.update().phase == "staged"
    hungry = Story(device, host, Limits(least_speed=0.01, runtime_bytes=0, answer_s=60))
    assert "of memory" in (await hungry.takeover.take("2.1")).reason
    assert story.serves() == "1.0"


async def test_damage_between_staging_and_the_test_is_found(
    publisher: Publisher, device: Device, models: list[Path], host: RealHost
) -> None:
    publisher.release(models[1], "2.0", 2)
    assert device.update().phase == "staged"
    path = device.slots.path("2.0") / "model.onnx.data"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    story = Story(device, host)
    assert "differs" in (await story.takeover.take("2.0")).reason
    assert story.serves() == "1.0"


@pytest.mark.parametrize(
    "trouble",
    [Vitals(1, 100, 0, 1, None), Vitals(1, 100, 50, 0, None)],
    ids=["crashes", "errors"],
)
async def test_trouble_while_watched_brings_the_old_one_back(
    publisher: Publisher, device: Device, models: list[Path], host: RealHost, trouble: Vitals
) -> None:
    publisher.release(models[1], "2.0", 2)
    assert device.update().phase == "staged"
    host.trouble = trouble
    story = Story(device, host)
    outcome = await story.takeover.take("2.0")
    assert not outcome.taken
    assert story.told == ["testing", "activating", "watching", "rolled_back"]
    assert (device.slots.active, story.serves()) == ("1.0", "1.0")
    assert refused(device.slots.journal.read())["2.0"].release == 2


async def test_an_engine_killed_under_the_test_leaves_the_old_one_serving(
    publisher: Publisher, device: Device, models: list[Path], host: RealHost
) -> None:
    publisher.release(models[1], "2.0", 2)
    assert device.update().phase == "staged"

    class Dying(RealEngine):
        async def ask(self, golden: Golden) -> object:  # type: ignore[override]
            assert self.link.pid is not None
            os.kill(self.link.pid, signal.SIGKILL)
            return await super().ask(golden)

    async def start(folder: Path, limit_s: float) -> RealEngine:
        engine = Dying(host._context, folder, device.state)
        await engine.load(limit_s)
        return engine

    host.start = start  # type: ignore[method-assign]
    story = Story(device, host)
    assert not (await story.takeover.take("2.0")).taken
    assert story.serves() == "1.0"


async def test_a_daemon_that_ends_while_watching_goes_on_after_its_restart(
    publisher: Publisher, device: Device, models: list[Path], host: RealHost
) -> None:
    publisher.release(models[1], "2.0", 2)
    assert device.update().phase == "staged"
    story = Story(device, host, Limits(watch_s=600, least_speed=0.01))
    taking = asyncio.create_task(story.takeover.take("2.0"))
    await asyncio.wait_for(story.watching.wait(), 60)
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert device.slots.active == "2.0"
    again = Story(device, host)
    outcome = await again.takeover.resume()
    assert outcome is not None
    assert outcome.taken
    assert await again.takeover.resume() is None


async def test_the_first_version_goes_back_to_what_shipped(
    publisher: Publisher, models: list[Path], tmp_path: Path
) -> None:
    device = Device(tmp_path / "fresh", publisher)
    assert device.update().phase == "staged"
    host = RealHost(device.state, models[2])
    await host.restore(None)
    host.trouble = Vitals(1, 100, 0, 3, None)
    story = Story(device, host)
    assert not (await story.takeover.take("1.0")).taken
    assert device.slots.active is None
    assert host.engine is not None
    assert host.engine.folder == models[2]
    await host.close()


def test_three_failed_starts_bring_the_previous_version_back(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    device.take()
    starts = Starts(device.state, device.slots)
    for _ in range(2):
        assert starts.begin() is None
    starts.forget()
    for _ in range(MOST_FAILED):
        assert starts.begin() is None
        assert device.slots.active == "2.0"
    reason = starts.begin()
    assert reason is not None
    assert "did not start 3 times" in reason
    assert device.slots.active == "1.0"
    assert device.update().phase == "up_to_date"
