"""A daemon, its updater and a publisher, all of them real: what is staged is tested and taken over, or it is not."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.client import Client
from edged.errors import NotFound, Unsupported
from edged.hardware.memory import read_memory
from edged.update import hold
from edged.update.bundle import Golden, Needs
from tests.integration.asker import Asker
from tests.integration.box import Box, record
from tests.integration.raw import Daemon, children, until

ORDER = (
    "checking",
    "available",
    "downloading",
    "verifying",
    "staged",
    "testing",
    "activating",
    "watching",
    "committed",
)
Start = Callable[..., Client]


@pytest.fixture(scope="module")
def golden() -> tuple[Golden, ...]:
    """Recorded from the model that ships."""
    with Daemon(follow_updates=False, ignore_eos=True) as reference:
        return record(reference.ready())


@pytest.fixture
def box(tmp_path: Path, golden: tuple[Golden, ...]) -> Box:
    return Box(tmp_path, golden)


@pytest.fixture
def start(box: Box) -> Iterator[Start]:
    """`start(**settings)`: a client of the box's daemon; a daemon started before is stopped first."""
    with box:
        yield box.client


def serving(client: Client) -> str | None:
    version: str | None = client.models()[0].raw.get("version")
    return version


def test_a_release_is_fetched_tested_and_taken_while_a_stream_goes_on(box: Box, start: Start) -> None:
    client = start()
    box.publish("1.0", 1)
    assert client.update("check")["outcome"] == "available"
    with Client(client.endpoint) as other:
        stream = other.chat("tell me about the lab", stream=True, max_tokens=1500, session="s")
        next(stream)
        heard: list[dict[str, Any]] = []
        done = client.update("apply", progress=heard.append)
        assert (done["outcome"], done["active"]) == ("taken", "1.0")
        assert serving(client) == "1.0"
        answer = stream.result()
        assert (answer.finish_reason, answer.usage.completion_tokens) == ("length", 1500)
        until(lambda: len(children(box.pid)) == 1, "the old engine to end with its last stream")
        again = other.chat("tell me about the lab", max_tokens=2, session="s")
        assert again.usage.cached_tokens == 0  # what the old engine kept ended with it
    phases = [event["phase"] for event in heard]
    assert phases == sorted(phases, key=ORDER.index)
    assert {"staged", "testing", "watching"} <= set(phases)
    assert "up to date\n  release 1 (1.0): not newer" in box.edged("update", "apply")


def test_a_bad_release_is_refused_and_remembered_until_it_is_asked_for_again(box: Box, start: Start) -> None:
    client = start()
    box.publish("1.0", 1)
    assert client.update("apply")["outcome"] == "taken"
    told = box.golden[0].model_copy(update={"answer": box.golden[1].answer})
    box.publish("2.0", 2, golden=(told,))
    done = client.update("apply")
    assert done["outcome"] == "refused"
    assert "golden prompt" in done["reason"]
    assert (done["active"], serving(client)) == ("1.0", "1.0")
    assert list(done["refused"]) == ["2.0"]
    assert client.chat("switch on the kitchen lamp", max_tokens=24).text == box.golden[1].answer
    found = client.update("apply")
    assert found["outcome"] == "up_to_date"
    assert found["last"]["passed"][0]["version"] == "2.0"
    assert client.update("apply", again=True)["outcome"] == "refused"
    assert box.log().count("phase=refused model=nano version=2.0") == 2  # it was tested once more


def test_going_back_by_hand_holds_updates_and_a_restart_keeps_to_it(box: Box, start: Start) -> None:
    client = start()
    for number in (1, 2):
        box.publish(f"{number}.0", number)
        assert client.update("apply")["outcome"] == "taken"
    done = client.update("rollback", reason="the lamp flickers")
    assert (done["active"], done["left"]) == ("1.0", "2.0")
    assert done["hold"] == "rolled back from 2.0: the lamp flickers"
    assert serving(client) == "1.0"
    assert client.update("rollback")["left"] == "1.0"
    assert serving(client) is None  # the one that shipped
    with pytest.raises(NotFound, match="nothing to go back from"):
        client.update("rollback")
    client = start()
    box.publish("3.0", 3)
    assert client.update("apply")["outcome"] == "waiting"
    assert client.update("hold", on=False)["hold"] == ""
    assert client.update("apply")["outcome"] == "taken"


def test_a_hold_while_a_version_is_staged_keeps_it_for_later(box: Box, start: Start) -> None:
    box.publish("1.0", 1)
    client = start(follow_updates=False)
    with pytest.raises(Unsupported, match="does not follow updates"):
        client.update("status")
    hold.hold(box.state / "update", "trade fair")
    box.stage()
    client = start()
    assert client.update("status")["staged"] == "1.0"
    assert serving(client) is None
    assert box.edged("update", "hold", "--off") == "updates go on\n"
    until(lambda: serving(client) == "1.0", "the staged version to serve")
    shown = json.loads(box.edged("update", "status", "--json"))
    assert (shown["active"], shown["takeover"]["version"]) == ("1.0", "1.0")  # only a daemon knows the second


def test_a_model_that_does_not_fit_beside_the_old_one_takes_its_place(box: Box, start: Start) -> None:
    """By the ledger: what the new one says it needs is more than is free, though less than the box has."""
    client = start()
    needs = Needs(memory_bytes=read_memory().usable_total_bytes - 1)
    box.publish("1.0", 1, damaged=True, needs=needs)
    with Asker(client.endpoint) as asker:
        assert client.update("apply")["outcome"] == "refused"
        box.publish("2.0", 2, needs=needs)
        assert client.update("apply")["outcome"] == "taken"
        assert asker.lost == []
    assert box.log().count("plan=instead") == 2
    assert serving(client) == "2.0"
    assert client.chat("switch on the kitchen lamp", max_tokens=24).text == box.golden[1].answer


def test_three_failed_starts_bring_the_version_before_back_without_a_network(box: Box, start: Start) -> None:
    client = start()
    for number in (1, 2):
        box.publish(f"{number}.0", number)
        assert client.update("apply")["outcome"] == "taken"
    for _ in range(4):  # stopped while it loads: that is no failed start
        box.begin().until(lambda: box.log().count("engine started"), "the engine to start")
        box.stop()
    assert box.slots.active == "2.0"
    weights = box.slots.path("2.0") / "model.onnx"
    start_of_it = weights.read_bytes()[:1000]
    weights.unlink()  # its bytes are shared with the version before
    weights.write_bytes(start_of_it)
    shutil.rmtree(box.publisher.folder)
    client = start()
    until(lambda: serving(client) == "1.0" and client.models()[0].state == "ready", "the version before")
    assert "did not start 3 times" in client.update("status")["refused"]["2.0"]


def test_an_engine_that_dies_again_and_again_while_it_is_watched(box: Box, start: Start) -> None:
    client = start(update_watch_s=600.0, update_watch_most_s=600.0)
    box.publish("1.0", 1)
    assert client.update("apply")["outcome"] == "taken"
    assert client.update("status")["testing"] == "1.0"
    os.kill(int(client.models()[0].raw["pid"]), signal.SIGKILL)
    until(lambda: "1.0" in client.update("status")["refused"], "it to be refused")
    until(lambda: serving(client) is None and client.models()[0].state == "ready", "the one that shipped")
    assert "ended 1 time" in client.update("status")["refused"]["1.0"]


def test_a_newer_release_waits_until_the_one_that_is_watched_proved_itself(box: Box, start: Start) -> None:
    client = start(update_watch_s=600.0, update_watch_most_s=600.0)
    box.publish("1.0", 1)
    assert client.update("apply")["outcome"] == "taken"
    box.publish("2.0", 2)
    done = client.update("apply")  # whoever asked is not kept for the whole watch
    assert (done["outcome"], done["staged"], done["active"]) == ("waiting", "2.0", "1.0")
    assert "1.0 serves and is being watched" in done["reason"]
    os.kill(int(client.models()[0].raw["pid"]), signal.SIGKILL)
    until(lambda: serving(client) == "2.0", "the newer one to serve")
    assert "ended 1 time" in client.update("status")["refused"]["1.0"]


def test_a_box_at_work_is_left_alone_when_its_owner_wants_that(
    box: Box, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    monkeypatch.setenv("EDGED_ENDPOINT", client.endpoint)
    with (box.base / "update.toml").open("a") as settings:
        settings.write("only_when_idle = true\n")
    box.publish("1.0", 1)
    with Asker(client.endpoint, clients=4, tokens=1000):
        box.edged("update", "run")  # as the timer does
        assert client.update("status")["last"]["message"] == "busy"
    until(lambda: not client.status().raw["models"][0]["engine"]["running"], "the work to end")
    box.edged("update", "run")
    until(lambda: serving(client) == "1.0", "the staged version to serve")
