"""Life and death of real processes: the engine is killed, crashed and stopped; the daemon is stopped and killed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator

import pytest
import zmq

from tests.integration.raw import (
    Daemon,
    Peer,
    chat,
    children,
    descriptors,
    kill_in_native_call,
    running,
    text_of,
    until,
)

LONG = {"prompt": "again and again", "max_tokens": 4000}


@pytest.fixture(scope="module")
def endless() -> Iterator[Daemon]:
    with Daemon(ignore_eos=True, hang_floor_s=2, hang_factor=1) as daemon:
        yield daemon.ready()


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGSEGV, 40], ids=["KILL", "SEGV", "a nameless signal"])
@pytest.mark.aarch64
def test_an_engine_that_dies_is_lost_for_its_requests_and_comes_back(endless: Daemon, deadly: int) -> None:
    pid, before = endless.engine_pid(), endless.model()["restarts"]
    with Peer(endless.endpoint) as peer, Peer(endless.endpoint, zmq.REQ) as other:
        mine = peer.send("generate", stream=True, prompt=f"one {deadly}", max_tokens=4000)  # two deaths: quarantine
        others = other.send("generate", prompt=f"another {deadly}", max_tokens=4000)
        peer.until_event(mine, "delta")
        os.kill(pid, deadly)
        killed_s = time.monotonic()
        lost = [peer.last(mine), other.last(others)]
        assert time.monotonic() - killed_s < 20  # the bar of 1 s is for a quiet machine, and is measured in tests/fault
        assert [(error["code"], error["retryable"]) for error in lost] in (
            [("engine_lost", True)] * 2,
            [("quarantined", False), ("engine_lost", True)],  # this input was in the native call at each death
        )
        assert other.ask("chat", **chat("hello", max_tokens=2))["ev"] == "done"  # waits for the new engine
    model = endless.model()
    assert model["restarts"] == before + 1
    assert model["pid"] != pid
    assert not running(pid)
    assert children(endless.pid) == [model["pid"]]


def test_an_engine_that_hangs_is_killed(endless: Daemon) -> None:
    pid = endless.engine_pid()
    with Peer(endless.endpoint) as peer:
        mine = peer.send("generate", stream=True, prompt="hang here", max_tokens=4000)
        peer.until_event(mine, "delta")
        os.kill(pid, signal.SIGSTOP)
        assert peer.ask("ping")["ev"] == "result"
        assert peer.last(mine)["code"] == "engine_lost"
        assert peer.ask("chat", **chat("hello", max_tokens=2))["ev"] == "done"
    assert "engine hangs" in endless.log()
    assert not running(pid)


def test_an_input_that_ends_the_engine_twice_is_quarantined() -> None:
    with Daemon(ignore_eos=True) as daemon, Peer(daemon.ready().endpoint) as peer:
        poison = {"prompt": "deadly " * 20, "max_tokens": 3500, "temperature": 0.5, "seed": 1}
        codes = []
        for _ in range(2):
            engine = daemon.engine_pid()
            mine = peer.send("generate", stream=True, **poison)
            peer.until_event(mine, "delta")
            daemon.until(lambda pid=engine: kill_in_native_call(pid), "a native call")
            codes.append(peer.last(mine)["code"])
        assert codes == ["engine_lost", "quarantined"]
        pid = daemon.engine_pid()
        again = peer.ask("generate", stream=True, **poison)
        assert (again["code"], again["retryable"]) == ("quarantined", False)
        assert peer.ask("generate", prompt="deadly " * 20, max_tokens=2)["ev"] == "done"  # another request is not
        assert daemon.engine_pid() == pid
        assert daemon.status()["front"]["quarantined_inputs"] == 1


@pytest.mark.aarch64
def test_sigterm_lets_running_streams_finish_and_takes_no_new_work() -> None:
    with Daemon(ignore_eos=True) as daemon, Peer(daemon.ready().endpoint) as peer:
        mine = peer.send("generate", stream=True, prompt="to the end", max_tokens=600)
        peer.until_event(mine, "delta")
        daemon.process.send_signal(signal.SIGTERM)
        until(lambda: peer.ask("status")["draining"], "the drain")
        refused = peer.ask("chat", **chat("too late"))
        assert (refused["code"], refused["retryable"]) == ("unavailable", True)
        assert "draining" in refused["message"]
        done = peer.last(mine)
        assert (done["finish_reason"], done["usage"]["completion_tokens"]) == ("length", 600)
        assert daemon.process.wait(60) == 0
    assert not daemon.socket.exists()


def test_a_drain_has_an_end() -> None:
    with Daemon(ignore_eos=True, drain_s=0.2) as daemon, Peer(daemon.ready().endpoint) as peer:
        mine = peer.send("generate", stream=True, **LONG)
        peer.until_event(mine, "delta")
        assert daemon.terminate() == 0
        assert peer.last(mine)["code"] == "unavailable"


def test_sigint_twice_stops_at_once() -> None:
    with Daemon(ignore_eos=True, drain_s=3000) as daemon, Peer(daemon.ready().endpoint) as peer:
        engine = daemon.engine_pid()
        mine = peer.send("generate", stream=True, **LONG)
        peer.until_event(mine, "delta")
        daemon.process.send_signal(signal.SIGINT)
        until(lambda: peer.ask("status")["draining"], "the drain")
        assert daemon.terminate(signal.SIGINT) == 0
        assert peer.last(mine)["code"] == "unavailable"
        assert not running(engine)


def test_sigterm_while_the_model_loads() -> None:
    with Daemon() as daemon:
        daemon.until(daemon.socket.exists, "the socket")
        with Peer(daemon.endpoint) as peer:
            assert peer.ask("ping")["ev"] == "result"
        assert daemon.terminate() == 0
        assert not list((daemon.directory / "s").glob("engine-*"))


def test_sighup_takes_over_what_is_safe(endless: Daemon) -> None:
    with Peer(endless.endpoint) as peer:
        endless.write_settings(log_level="debug", max_requests_per_client=2, max_running=3)
        endless.process.send_signal(signal.SIGHUP)
        endless.until(lambda: "settings re-read" in endless.log(), "the settings to be read")
        assert "take effect at the next restart: max_running" in endless.log()
        assert peer.ask("hello")["limits"]["max_requests_per_client"] == 2
        requests = [peer.send("generate", prompt="as the owner wishes", max_tokens=4000) for _ in range(3)]
        assert peer.last(requests[2])["code"] == "busy"
        for request in requests[:2]:
            peer.ask("cancel", target=request)
            peer.last(request)
        endless.write_settings(log_level="loud")
        endless.process.send_signal(signal.SIGHUP)
        endless.until(lambda: "settings not re-read" in endless.log(), "the bad setting to be refused")
        assert peer.ask("ping")["ev"] == "result"


def test_a_second_daemon_is_kept_off_the_socket(endless: Daemon) -> None:
    endless.write_settings(log_level="info")
    with Daemon(directory=endless.directory) as second:
        assert second.process.wait(60) == 1
        assert "another edged serves" in second.log()
        assert "Traceback" not in second.log()
    assert endless.status()["ev"] == "result"


def test_a_killed_daemon_leaves_no_engine_and_its_stale_socket_is_no_hindrance() -> None:
    with Daemon(ignore_eos=True) as first:
        engine = first.engine_pid()
        with Peer(first.endpoint) as peer:
            peer.until_event(peer.send("generate", stream=True, **LONG), "delta")
            first.process.kill()
            first.process.wait()
            until(lambda: not running(engine), "the engine to die with its front")
            assert first.socket.exists()
            with Daemon(directory=first.directory) as second:
                second.ready()
                assert peer.ask("ping")["ev"] == "result"  # the same client goes on by itself
                assert second.terminate() == 0


def test_deaths_leave_nothing_behind(endless: Daemon) -> None:
    def left() -> tuple[int, int, int]:
        endless.ready()
        names = [name for name in descriptors(endless.pid) if "memfd" in name or "pidfd" in name or "pipe" in name]
        return len(names), len(descriptors(endless.pid)), len(children(endless.pid))

    before = left()
    for number in range(5):  # tests/fault/engine_deaths.py does hundreds
        os.kill(endless.engine_pid(), (signal.SIGKILL, signal.SIGSEGV)[number % 2])
        endless.until(lambda: endless.model()["state"] != "ready", "the death to be noticed")
    endless.until(lambda: abs(left()[1] - before[1]) <= 2 and left()[0] == before[0], "all to be given back")
    assert left()[2] == before[2] == 1
    assert len(list((endless.directory / "s").glob("engine-*"))) == 1


def test_a_cleaner_that_takes_the_channels_directory_is_survived(endless: Daemon) -> None:
    (channel,) = (endless.directory / "s").glob("engine-*")
    pid = endless.engine_pid()
    shutil.rmtree(channel)
    os.kill(pid, signal.SIGKILL)
    endless.until(lambda: endless.model().get("pid") != pid or endless.model()["state"] != "ready", "the death")
    with Peer(endless.endpoint) as peer:
        assert endless.engine_pid() != pid
        assert peer.ask("chat", **chat("hello", max_tokens=2))["ev"] == "done"


def test_answers_are_whole_after_all_that(endless: Daemon) -> None:
    with Peer(endless.endpoint) as peer:
        events = list(peer.events(peer.send("chat", stream=True, **chat("hello", max_tokens=30))))
        assert events[-1]["usage"]["completion_tokens"] == 30
        assert text_of(events)
        assert endless.model()["engine"]["book_errors"] == 0


def test_too_few_descriptors_are_refused_in_one_line() -> None:
    with Daemon(under=["prlimit", "--nofile=512:512"]) as daemon:
        assert daemon.process.wait(60) == 1
        line = daemon.log().strip()
        assert line.startswith("edged: the hard limit of open files is 512; edged needs 1280")
        assert "\n" not in line
