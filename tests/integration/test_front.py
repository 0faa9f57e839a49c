"""The front process by raw sockets: who may say what, and in what shape the answer comes back."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgpack
import pytest
import zmq

from tests.integration.raw import Daemon, Peer, chat, descriptors, text_of, until

LONG = {"prompt": "again and again " * 20, "max_tokens": 3000}


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with Daemon(ignore_eos=True) as daemon:
        yield daemon.ready()


@pytest.mark.aarch64
def test_req_and_dealer_get_the_same_answer(served: Daemon) -> None:
    question = chat("set the lab fan to 40 percent", max_tokens=20)
    with Peer(served.endpoint, zmq.REQ) as req, Peer(served.endpoint) as dealer:
        whole = req.ask("chat", **question)
        events = list(dealer.events(dealer.send("chat", stream=True, **question)))
    assert whole["ev"] == "done"
    assert whole["text"]
    assert [event["ev"] for event in events if event["ev"] not in ("delta", "queued")] == ["accepted", "done"]
    assert text_of(events) == whole["text"]
    assert "text" not in events[-1]
    assert events[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == 20


def test_a_delimiter_is_mirrored_in_every_reply(served: Daemon) -> None:
    with Peer(served.endpoint) as peer:
        request = {"v": 1, "id": "d", "op": "chat", "stream": True, **chat("hello", max_tokens=3)}
        peer.send_frames(b"", msgpack.packb(request))
        while True:
            delimiter, data = peer.receive_frames()
            assert delimiter == b""
            if msgpack.unpackb(data)["ev"] == "done":
                break
        peer.send_frames(b"", b"\xc1")  # errors too
        delimiter, data = peer.receive_frames()
        assert (delimiter, msgpack.unpackb(data)["code"]) == (b"", "invalid_request")
        peer.send("ping")
        assert len(peer.receive_frames()) == 1


def test_req_with_correlation_is_answered(served: Daemon) -> None:
    with Peer(served.endpoint, zmq.REQ, REQ_CORRELATE=1, REQ_RELAXED=1) as peer:
        forgotten = peer.send("generate", **LONG)  # relaxed: the next request may be sent without its reply
        assert peer.ask("ping")["ev"] == "result"
        assert peer.ask("chat", **chat("hello", max_tokens=2))["ev"] == "done"
    assert forgotten
    served.until(lambda: served.status()["front"]["live_requests"] == 0, "the forgotten request to end")


def test_req_cannot_stream(served: Daemon) -> None:
    with Peer(served.endpoint, zmq.REQ) as peer:
        error = peer.ask("chat", stream=True, **chat("hello"))
        assert error["code"] == "invalid_request"
        assert error["message"].startswith("stream:")
        assert peer.ask("ping")["ev"] == "result"


@pytest.mark.aarch64
def test_hello_tells_what_a_client_may_do(served: Daemon) -> None:
    with Peer(served.endpoint) as peer:
        hello = peer.ask("hello")
        assert hello["protocol"] == "edged/1"
        assert {"hello", "ping", "status", "models", "chat", "generate", "tokenize", "cancel"} <= set(hello["ops"])
        assert hello["limits"]["max_header_bytes"] == 256 * 1024
        assert peer.ask("models")["models"][0]["name"] in hello["models"]


def test_ping_is_answered_while_a_prompt_is_read(served: Daemon) -> None:
    with Peer(served.endpoint) as reader, Peer(served.endpoint) as other:
        long = reader.send("generate", prompt="warm cold " * 600, max_tokens=1)
        answers = 0
        while not reader.socket.poll(0) or reader.receive()["ev"] != "done":
            assert other.ask("ping")["ev"] == "result"
            answers += 1
    assert long
    assert answers > 1


def test_ids_are_a_clients_own(served: Daemon) -> None:
    with Peer(served.endpoint) as one, Peer(served.endpoint) as two:
        mine = one.send("generate", id="same", stream=True, **LONG)
        one.until_event(mine, "accepted")
        assert two.ask("chat", id="same", **chat("hello", max_tokens=2))["ev"] == "done"
        stolen = two.ask("cancel", target="same")
        assert (stolen["ev"], stolen["code"]) == ("error", "not_found")
        one.send("generate", id="same", stream=True, **LONG)
        refused = next(reply for reply in iter(one.receive, None) if reply["ev"] == "error")
        assert refused["code"] == "invalid_request"
        assert refused["message"].startswith("id:")
        assert one.ask("cancel", target="same")["cancelled"] is True
        assert one.last("same")["finish_reason"] == "cancelled"
        assert one.ask("chat", id="same", **chat("hello", max_tokens=2))["ev"] == "done"


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
@pytest.mark.aarch64
def test_a_vanished_client_frees_its_memory(served: Daemon, kind: int) -> None:
    peer = Peer(served.endpoint, kind)
    peer.send("generate", **LONG)
    served.until(lambda: served.model()["engine"].get("kv", {}).get("running_bytes"), "the request to run")
    peer.close()
    served.until(lambda: served.status()["front"]["live_requests"] == 0, "the front to notice")
    served.until(lambda: served.model()["engine"]["kv"]["running_bytes"] == 0, "the memory to be free")
    assert served.model()["engine"]["book_errors"] == 0


def test_a_slow_reader_is_ended_and_nobody_else() -> None:
    with Daemon(ignore_eos=True, outbox_bytes=8192, slow_consumer_s=1) as daemon:
        daemon.ready()
        with Peer(daemon.endpoint, RCVHWM=1, RCVBUF=4096) as slow, Peer(daemon.endpoint) as other:
            mine = [slow.send("generate", stream=True, logprobs=20, **LONG) for _ in range(2)]
            answer = list(other.events(other.send("chat", stream=True, **chat("hello", max_tokens=600))))
            assert answer[-1]["finish_reason"] == "length"
            daemon.until(lambda: daemon.status()["front"]["live_requests"] == 0, "the slow reader to be ended")
            assert daemon.status()["front"]["counts"]["error.slow_consumer"] >= 2
            for request in mine:  # when it reads at last, it is told how each of its requests ended
                last = slow.last(request)
                assert (last["ev"], last["code"], last["retryable"]) == ("error", "slow_consumer", False)
            assert slow.last(None)["code"] == "slow_consumer"
            until(lambda: slow.ask("ping")["ev"] == "result", "it to be served again")
            assert daemon.model()["engine"]["book_errors"] == 0


def test_a_flood_is_answered_or_told_busy(served: Daemon) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(served.endpoint, SNDHWM=0, RCVHWM=0)) for _ in range(50)]
        sent = [(peer, peer.send("chat", **chat("hello", max_tokens=1))) for _ in range(20) for peer in peers]
        ends = [peer.last(request) for peer, request in sent]
    kinds = {end.get("finish_reason") or end["code"] for end in ends}
    assert kinds <= {"length", "stop", "busy"}
    assert all(end["retryable"] and end["retry_after_ms"] > 0 for end in ends if end["ev"] == "error")
    assert any(end["ev"] == "done" for end in ends)


def test_clients_beyond_the_cap_are_told_busy_until_there_is_room() -> None:
    with Daemon(max_clients=3) as daemon, ExitStack() as stack:
        daemon.ready()
        first, second, third, fourth = crowd = [stack.enter_context(Peer(daemon.endpoint)) for _ in range(4)]
        ends = [peer.ask("chat", **chat("hello", max_tokens=1)) for peer in crowd]
        assert [end["ev"] for end in ends] == ["done"] * 3 + ["error"]
        assert (ends[3]["code"], ends[3]["retryable"]) == ("busy", True)
        assert fourth.ask("ping")["ev"] == "result"
        first.close()
        until(lambda: fourth.ask("chat", **chat("hello", max_tokens=1))["ev"] == "done", "room for the fourth")
        assert second.ask("ping")
        assert third.ask("ping")


def test_silent_connections_are_cut_before_descriptors_run_out() -> None:
    with Daemon(max_clients=8) as daemon, ExitStack() as stack, Peer(daemon.ready().endpoint) as friend:
        running = friend.send("generate", stream=True, prompt="on and on", max_tokens=300, temperature=1.0)
        friend.until_event(running, "accepted")
        for _ in range(200):
            silent = stack.enter_context(socket.socket(socket.AF_UNIX))
            silent.connect(str(daemon.socket))
        assert friend.last(running)["ev"] == "done"
        with Peer(daemon.endpoint) as late:
            assert late.ask("ping")["ev"] == "result"
        daemon.until(lambda: len(descriptors(daemon.pid)) < 8 * 2 + 64 + 40, "the cut ones to be closed", 8)
        assert "are the most there may be" in daemon.log()


def test_no_process_has_an_internet_socket(served: Daemon) -> None:
    for pid in (served.pid, served.engine_pid()):
        inodes = {name[8:-1] for name in descriptors(pid) if name.startswith("socket:[")}
        for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
            path = Path(f"/proc/{pid}/net/{table}")
            lines = path.read_text().splitlines()[1:] if path.exists() else []
            assert not inodes & {line.split()[9] for line in lines}, f"{pid} has a {table} socket"
