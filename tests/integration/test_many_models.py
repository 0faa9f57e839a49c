"""Several models of one daemon: loaded for a request, unloaded for another, by admins, by the clock, at the start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.client import Client
from tests.integration.raw import ROOT, Daemon, Peer, chat, nano_folder, running

SHORT = {"max_tokens": 2}
LONG = {"prompt": "again and again", "max_tokens": 3000, "stream": True}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the models `second` and `third`."""
    made = tmp_path_factory.mktemp("state")
    for name in ("second", "third"):
        subprocess.run(
            [sys.executable, "-m", "edged", "import", str(nano_folder()), "--name", name],
            env=os.environ | {"EDGED_STATE_DIR": str(made)},
            cwd=ROOT,
            check=True,
            capture_output=True,
            timeout=120,
        )
    return made


@pytest.fixture(scope="module")
def two(state: Path) -> Iterator[Daemon]:
    """A daemon that keeps at most two models in memory."""
    with Daemon(state_dir=str(state), max_loaded_models=2, preload=["second", "nobody"], ignore_eos=True) as daemon:
        yield daemon.ready()


def states(daemon: Daemon) -> dict[str, str]:
    """Of nano and the two in the store; others ship with edged."""
    with Peer(daemon.endpoint) as peer:
        listed = {model["name"]: model["state"] for model in peer.ask("models")["models"]}
    return {name: listed[name] for name in ("nano", "second", "third")}


def pids(daemon: Daemon) -> dict[str, Any]:
    return {model["name"]: model.get("pid") for model in daemon.status()["models"]}


def test_the_preload_list_is_loaded_and_what_is_not_there_is_only_told(two: Daemon) -> None:
    two.until(lambda: states(two)["second"] == "ready", "the preload")
    assert states(two) == {"nano": "ready", "second": "ready", "third": "unloaded"}
    two.until(lambda: "preload: model: 'nobody' is not installed" in two.log(), "the word on what is missing")


def test_a_request_loads_its_model_and_the_one_used_least_recently_leaves(two: Daemon) -> None:
    before = pids(two)
    with Peer(two.endpoint) as peer:
        assert peer.ask("chat", model="second", **chat("first", **SHORT))["ev"] == "done"
        assert peer.ask("chat", **chat("then the default", **SHORT))["ev"] == "done"
        requests = [peer.send("chat", model="third", **chat("a third", **SHORT)) for _ in range(3)]
        assert [peer.last(request)["ev"] for request in requests] == ["done"] * 3
    assert states(two) == {"nano": "ready", "second": "unloaded", "third": "ready"}
    assert not running(before["second"])
    assert pids(two)["nano"] == before["nano"]
    assert "model unloaded model=second for=third" in two.log()


def test_a_model_with_work_is_never_unloaded(two: Daemon) -> None:
    with Peer(two.endpoint) as peer:
        streams = [peer.send("generate", model=model, **LONG) for model in ("nano", "third")]
        for stream in streams:
            peer.until_event(stream, "delta")
        refused = peer.ask("chat", model="second", **chat("now?", **SHORT))
        assert (refused["code"], refused["retryable"]) == ("busy", True)
        assert refused["retry_after_ms"] > 0
        assert "nano, third" in refused["message"]
        unload = peer.ask("unload", model="third")
        assert unload["code"] == "busy"
        for stream in streams:
            peer.ask("cancel", target=stream)
            assert peer.last(stream)["finish_reason"] == "cancelled"
        assert peer.ask("chat", model="second", **chat("and now", **SHORT))["ev"] == "done"


def test_admins_load_and_unload(two: Daemon) -> None:
    with Peer(two.endpoint) as peer:
        assert {"load", "unload"} <= set(peer.ask("hello")["ops"])
        pid = pids(two)["nano"]
        loaded = peer.ask("load", model="nano")
        assert (loaded["model"], loaded["state"]) == ("nano", "ready")
        unloaded = peer.ask("unload", model="nano")
        assert (unloaded["model"], unloaded["state"]) == ("nano", "unloaded")
        assert not running(pid) or pids(two)["nano"] != pid
        assert peer.ask("unload", model="nano")["state"] == "unloaded"
        assert peer.ask("load", model="nobody")["code"] == "not_found"
        assert peer.ask("load", model="../nano")["code"] == "not_found"
        assert peer.ask("chat", **chat("the default comes back", **SHORT))["ev"] == "done"


def test_the_commands_and_the_client(two: Daemon) -> None:
    def edged(*words: str) -> str:
        command = [sys.executable, "-m", "edged", *words, "-e", two.endpoint]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=120).stdout

    assert edged("load", "second", "--keep", "0") == "second: ready\n"
    assert edged("unload", "second") == "second: unloaded\n"
    with Client(two.endpoint) as client:
        assert client.load("second").state == states(two)["second"] == "ready"
        assert client.unload("second").name == "second"


def test_a_deadline_and_a_cancel_count_while_a_model_loads(two: Daemon) -> None:
    with Peer(two.endpoint) as peer:
        peer.ask("unload", model="third")
        late = peer.send("chat", model="third", deadline_ms=1, **chat("at once", **SHORT))
        mine = peer.send("chat", model="third", **chat("never mind", **SHORT))
        assert peer.ask("cancel", target=mine)["cancelled"]
        assert peer.last(late)["code"] == "deadline_exceeded"
        assert peer.last(mine)["code"] == "cancelled"
        assert peer.ask("chat", model="third", **chat("later", **SHORT))["ev"] == "done"


def test_a_loaded_model_leaves_when_nobody_needs_it_for_a_while(two: Daemon) -> None:
    with Peer(two.endpoint) as peer:
        assert peer.ask("load", model="third", keep_s=0.3)["state"] == "ready"
        two.until(lambda: states(two)["third"] == "unloaded", "the idle model to be unloaded")
        assert "model unloaded model=third idle_s=0.3" in two.log()


def test_an_owner_may_forbid_that_requests_load_and_unload(state: Path) -> None:
    with (
        Daemon(state_dir=str(state), load_for_request=False, evict_for_request=False, max_loaded_models=1) as daemon,
        Peer(daemon.ready().endpoint) as peer,
    ):
        refused = peer.ask("chat", model="second", **chat("hello", **SHORT))
        assert refused["code"] == "unavailable"
        assert "a request does not load it here" in refused["message"]
        assert peer.ask("load", model="second")["state"] == "ready"  # an admin's word counts, and makes room
        assert states(daemon)["nano"] == "unloaded"
        refused = peer.ask("chat", model="nano", **chat("hello", **SHORT))
        assert refused["code"] == "unavailable"
        assert "may not unload" in refused["message"]
