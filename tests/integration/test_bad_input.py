"""Every row of bad input, over a real socket: a clear error each time, and the daemon serves on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from tests.integration.raw import Daemon, Peer, chat, nano_folder


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with Daemon(default_max_tokens=50) as daemon:
        yield daemon.ready()
        counts = daemon.status()["front"]["counts"]
        assert counts.get("error.internal", 0) == 0, daemon.log()
        assert daemon.model()["restarts"] == 0
        assert daemon.model()["engine"]["book_errors"] == 0


@pytest.fixture
def peer(served: Daemon) -> Iterator[Peer]:
    with Peer(served.endpoint) as peer:
        yield peer
        assert peer.ask("ping")["ev"] == "result"


def _deep(levels: int) -> dict[str, Any]:
    """A map with `levels` maps and lists inside each other, itself counted."""
    inner: Any = []
    for _ in range(levels - 2):
        inner = [inner]
    return {"v": 1, "id": 1, "op": "ping", "deep": inner}


HEADERS = {
    "empty frame": (b"", "empty"),
    "no map": (msgpack.packb([1, 2]), "map"),
    "half a map": (msgpack.packb({"v": 1, "op": "ping"})[:-2], "msgpack"),
    "two maps": (msgpack.packb({"v": 1}) * 2, "msgpack"),
    "reserved byte": (b"\xc1", "msgpack"),
    "key twice": (b"\x83\xa1v\x01\xa2op\xa4ping\xa2op\xa4ping", "op"),
    "key not text": (msgpack.packb({"v": 1, 7: 1}), "msgpack"),
    "key of bytes": (msgpack.packb({"v": 1, b"x": 1}), "keys"),
    "ext type": (msgpack.packb({"v": 1, "op": msgpack.ExtType(5, b"x")}), "ext"),
    "timestamp": (msgpack.packb({"v": 1, "op": msgpack.Timestamp(1, 2)}), "op"),
    "17 deep": (msgpack.packb(_deep(17)), "deep"),
    "2000 deep": (b"\x81\xa1x" + b"\x91" * 2000 + b"\xc0", "msgpack"),
    "not UTF-8": (b"\x82\xa1v\x01\xa4text\xa3a\xffb", "text"),
    "surrogate": (b"\x82\xa1v\x01\xa4text\xa3\xed\xa0\x80", "text"),
    "a list longer than its frame": (b"\x81\xa1x\xdd\xff\xff\xff\xff", "msgpack"),
    "257 KiB": (msgpack.packb({"v": 1, "op": "ping", "pad": "x" * 257 * 1024}), "bytes"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_no_request(peer: Peer, name: str) -> None:
    data, named = HEADERS[name]
    peer.send_frames(data)
    error = peer.receive()
    assert (error["ev"], error["code"], error["id"]) == ("error", "invalid_request", None)
    assert named in error["message"]
    assert error["retryable"] is False


def test_depth_16_and_256_kib_are_still_read(peer: Peer) -> None:
    peer.send_frames(msgpack.packb(_deep(16)))
    assert "deep: Extra inputs" in peer.receive()["message"]  # refused for its field, not for its depth
    text = "x" * (256 * 1024 - 100)
    assert peer.ask("tokenize", text=text)["count"] > 0


def test_too_many_and_missing_attachments(peer: Peer) -> None:
    ping = msgpack.packb({"v": 1, "id": 1, "op": "ping"})
    peer.send_frames(ping, *[b"x"] * 16)
    assert peer.receive()["message"] == "attachments: ping takes none (16 were sent)"
    peer.send_frames(ping, *[b"x"] * 17)
    assert peer.receive()["message"].startswith("17 attachments")
    image = {"type": "image", "frame": 0}
    for content in ([image], [{"type": "video", "frames": [0, 3]}]):
        error = peer.ask("chat", messages=[{"role": "user", "content": content}])
        assert error["code"] == "invalid_request"
        assert "frame 0 was not sent" in error["message"]


def test_attachments_larger_than_allowed() -> None:
    with Daemon(max_frame_bytes=300_000, max_message_bytes=500_000) as daemon, Peer(daemon.ready().endpoint) as peer:
        ping = msgpack.packb({"v": 1, "id": 1, "op": "ping"})
        peer.send_frames(ping, b"x" * 300_000)
        assert "ping takes none" in peer.receive()["message"]
        peer.send_frames(ping, b"x" * 260_000, b"x" * 260_000)
        assert "520000 bytes together" in peer.receive()["message"]
        peer.send_frames(ping, b"x" * 300_001)  # libzmq cuts the connection; the client connects again
        assert peer.quiet()
        daemon.until(lambda: peer.ask("ping")["ev"] == "result", "the client to be served again")


BODIES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "no messages": ("chat", {"messages": []}, "invalid_request", "messages"),
    "unknown role": ("chat", {"messages": [{"role": "boss", "content": "x"}]}, "invalid_request", "role"),
    "last not user": ("chat", {"messages": [{"role": "assistant", "content": "x"}]}, "invalid_request", "messages"),
    "unknown field": ("chat", chat("x", temprature=1), "invalid_request", "temprature"),
    "NUL": ("chat", chat("a\0b"), "invalid_request", "content"),
    "NUL in a stop": ("chat", chat("a", stop=["x", "\0"]), "invalid_request", "stop"),
    "no such model": ("chat", chat("x", model="gpt-9"), "not_found", "gpt-9"),
    "no such op": ("dance", {}, "invalid_request", "op"),
    "empty prompt": ("generate", {"prompt": ""}, "invalid_request", "prompt"),
    "overflow in generate": ("generate", {"prompt": "x", "overflow": "truncate_oldest"}, "invalid_request", "overflow"),
    "beams": ("chat", chat("x", num_beams=4), "unsupported", "num_beams"),
    "tools": ("chat", chat("x", tools=[{"name": "f"}]), "unsupported", "tools"),
    "JSON schema": ("chat", chat("x", response_format={"type": "json"}), "unsupported", "response_format"),
    "nothing to cancel": ("cancel", {"target": "never"}, "not_found", "target"),
    "no such session": ("session.close", {"session": "never"}, "not_found", "session"),
    "long prompt": ("generate", {"prompt": "hot cold " * 20_000}, "too_large", "4096"),
    "long answer": ("generate", {"prompt": "hot", "max_tokens": 5000}, "too_large", "max_tokens"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_request_that_cannot_be_served(peer: Peer, name: str) -> None:
    op, fields, code, named = BODIES[name]
    error = peer.ask(op, **fields)
    assert (error["ev"], error["code"]) == ("error", code)
    assert named in error["message"]
    if code == "too_large":
        assert error["max_tokens_fit"] == 4096


def test_text_that_is_one_endless_word(peer: Peer) -> None:
    for text in ("x" * 200_000, "é" * 60_000, "<|end|>" * 8_000, " " * 100_000, "\n" * 100_000):
        answer = peer.ask("tokenize", text=text)
        assert answer["ev"] == "result"
        assert answer["count"] == len(answer["tokens"]) > 0


def test_empty_text_is_no_token_or_a_few(peer: Peer) -> None:
    assert peer.ask("tokenize", text="")["count"] <= 1
    assert peer.ask("chat", **chat("", max_tokens=2))["ev"] == "done"


def test_the_largest_prompt_and_answer_that_fit_do(peer: Peer) -> None:
    prompt = "hot cold " * 2
    used = peer.ask("tokenize", text=prompt)["count"]
    assert peer.ask("generate", prompt=prompt, max_tokens=4096 - used + 1)["code"] == "too_large"
    request = peer.send("generate", prompt=prompt, max_tokens=4096 - used, stream=True)
    assert peer.until_event(request, "accepted")["prompt_tokens"] == used
    peer.ask("cancel", target=request)
    peer.last(request)


def test_errors_never_hold_a_path_or_pid(served: Daemon, peer: Peer) -> None:
    told = [peer.ask(op, **fields)["message"] for op, fields, _, _ in BODIES.values()]
    for message in told:
        assert str(nano_folder()) not in message
        assert str(served.directory) not in message
        assert str(served.pid) not in message


def _spoil(folder: Path, how: str) -> None:
    if how == "half-copied":
        data = folder / "model.onnx.data"
        with data.open("r+b") as file:
            file.truncate(data.stat().st_size // 2)
    elif how == "no weights":
        (folder / "model.onnx.data").unlink()
    elif how == "torn graph":
        graph = folder / "model.onnx"
        graph.write_bytes(graph.read_bytes()[:1000])
    elif how == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif how == "torn tokenizer":
        (folder / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes()[:5000])
    elif how == "torn config":
        (folder / "genai_config.json").write_text('{"model": ')
    elif how == "no model":
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / "notes.txt").write_text("nothing")
    else:
        shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("half-copied", "model.onnx.data"),
        ("no weights", "model.onnx.data"),
        ("torn graph", "model.onnx"),
        ("no tokenizer", "tokenizer.json"),
        ("torn tokenizer", "tokenizer.json"),
        ("torn config", "genai_config.json"),
        ("no model", "genai_config.json"),
        ("missing", "does not exist"),
    ],
)
def test_a_model_folder_that_cannot_be_loaded(tmp_path: Path, how: str, named: str) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(nano_folder(), folder)
    _spoil(folder, how)
    with Daemon(folder) as daemon:
        daemon.until(lambda: daemon.model()["state"] == "failed", "the load to fail")
        with Peer(daemon.endpoint, zmq.REQ) as peer:
            error = peer.ask("chat", **chat("hello"))
            assert (error["code"], error["retryable"]) == ("unavailable", True)
            status = peer.ask("status")
            assert named in status["models"][0]["reason"]
            for told in (error["message"], str(status)):
                assert named in told
                assert str(tmp_path) not in told
            assert peer.ask("ping")["ev"] == "result"
        assert str(folder) in daemon.log()  # the owner is told where
        if how == "half-copied":
            shutil.rmtree(folder)
            shutil.copytree(nano_folder(), folder)
            daemon.ready()  # the daemon tries again by itself


def test_a_message_of_very_many_frames_is_refused_and_holds_nobody_up(served: Daemon, peer: Peer) -> None:
    with Peer(served.endpoint, SNDHWM=0) as giant:
        giant.send_frames(*([msgpack.packb({"v": 1, "id": 1, "op": "ping"})] + [b""] * 100_000))
        assert peer.ask("ping")["ev"] == "result"
        refused = giant.receive()
        assert (refused["ev"], refused["code"]) == ("error", "invalid_request")
        assert "at most 16" in refused["message"]
        assert giant.ask("ping")["ev"] == "result"
