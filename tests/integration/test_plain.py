"""Plain models through the daemon: the shipped digits, texts, tensors, images that are none, an engine that dies."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from edged.client import AsyncClient, Client, Tensor
from edged.errors import Busy, EngineLost, InvalidRequest, NotFound, RequestError, Unsupported
from edged.protocol.codec import pack
from tests.integration.raw import ROOT, Daemon, Peer, rss_bytes
from tests.unit.engine import plain_models
from tests.unit.engine.hostile_images import harmless_but_odd, hostile

DIGITS = sorted((ROOT / "tests" / "data" / "digits").glob("*.png"))
MOST_GROWTH_BYTES = 150_000_000


@pytest.fixture(scope="module")
def digits() -> Iterator[Daemon]:
    with Daemon(ROOT / "models" / "digits") as daemon:
        yield daemon.ready()


def _edged(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edged", *arguments, "-e", daemon.endpoint],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def _engine(client: Client) -> dict[str, Any]:
    return next(model.raw for model in client.status().models if model.name == "digits")


def test_held_out_digits_are_read(digits: Daemon) -> None:
    assert len(DIGITS) == 20
    with Client(digits.endpoint) as client:
        right = sum(client.infer(path.read_bytes()).labels[0].label == path.name[0] for path in DIGITS)
        answer = client.infer(DIGITS[0].read_bytes(), top_k=2)
    assert right >= 19
    assert len(answer.labels) == 2
    assert 0 < answer.labels[1].score < answer.labels[0].score <= 1
    assert answer.image == {"width": 80, "height": 80}


def test_many_at_once_each_get_their_own_answer(digits: Daemon) -> None:
    async def all_at_once() -> list[str]:
        async with AsyncClient(digits.endpoint) as client:
            answers = await asyncio.gather(*(client.infer(path.read_bytes()) for path in DIGITS * 2))
        return [answer.labels[0].label for answer in answers]

    answered = asyncio.run(all_at_once())
    assert sum(label == path.name[0] for label, path in zip(answered, DIGITS * 2, strict=True)) >= 38


def test_tensors_of_the_same_model(digits: Daemon) -> None:
    pixels = np.zeros((3, 1, 8, 8), np.float32)
    with Client(digits.endpoint) as client:
        answer = client.infer(inputs={"pixels": Tensor("float32", pixels.shape, pixels.tobytes())})
        with pytest.raises(InvalidRequest, match=r"pixels: dtype int8, but the model wants float32 \[batch, 1, 8, 8\]"):
            client.infer(inputs={"pixels": Tensor("int8", (1, 1, 8, 8), bytes(64))})
        with Peer(digits.endpoint) as peer:
            missing = peer.ask("infer", image=3)
        with pytest.raises(Unsupported, match="takes infer with an image"):
            client.chat("hello")
        with pytest.raises(Unsupported):
            client.embed("hello")
        with pytest.raises(NotFound):
            client.infer(DIGITS[0].read_bytes(), model="faces")
    assert (missing["code"], missing["message"]) == ("invalid_request", "image: frame 3 was not sent (0 were)")
    scores = answer.outputs["scores"]
    values = np.frombuffer(scores.data, scores.dtype).reshape(scores.shape)
    assert values.shape == (3, 10)
    assert np.array_equal(values[0], values[2])


def test_malformed_images_and_bombs_cost_an_answer_each_and_no_more(digits: Daemon) -> None:
    with Client(digits.endpoint) as client:
        client.infer(DIGITS[0].read_bytes())
        before = _engine(client)
        peak_bytes = _peak_bytes(before["pid"])
        codes: dict[str, str] = {}
        for name, data in hostile():
            with pytest.raises(RequestError) as caught:
                client.infer(data)
            codes[name] = caught.value.code
        for _, data in harmless_but_odd():
            client.infer(data)
        after = _engine(client)
        assert client.infer(DIGITS[0].read_bytes()).labels
    assert len(codes) >= 200
    assert set(codes.values()) <= {"invalid_request", "too_large"}, codes
    assert after["pid"] == before["pid"], "the engine lives"
    assert _peak_bytes(after["pid"]) - peak_bytes <= MOST_GROWTH_BYTES
    assert after["engine"]["kv"]["running_bytes"] == 0


def _peak_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def test_it_is_loaded_beside_another_for_who_names_it_and_replaced_when_it_ends() -> None:
    with Daemon() as daemon, Client(daemon.ready().endpoint) as client:
        image = DIGITS[0].read_bytes()
        with pytest.raises(Unsupported, match="this is a language model"):
            client.infer(image)
        assert client.infer(image, model="digits").labels[0].label == DIGITS[0].name[0]
        os.kill(_engine(client)["pid"], signal.SIGKILL)
        for _ in range(100):
            try:
                answer = client.infer(image, model="digits")
                break
            except EngineLost:
                time.sleep(0.1)
        assert answer.labels[0].label == DIGITS[0].name[0]
        assert _engine(client)["restarts"] == 1
        assert "digits" in _edged(daemon, "status").stdout


def test_texts_through_the_daemon(tmp_path: Path) -> None:
    folder = plain_models.embedder(tmp_path / "words")
    table = plain_models.word_vectors()
    with Daemon(folder) as daemon, Client(daemon.ready().endpoint) as client:
        answer = client.embed(["the pump is hot", "fan"], normalize=False)
        assert answer.vectors[1] == pytest.approx(table[3].tolist(), abs=1e-6)
        assert answer.shape == (2, 4)
        printed = _edged(daemon, "embed", "words", "fan", "--raw")
        assert json.loads(printed.stdout) == pytest.approx(table[3].tolist(), abs=1e-5), printed.stderr


def test_a_client_that_leaves_large_replies_unread_costs_its_ceiling_and_no_more(tmp_path: Path) -> None:
    reply_bytes, asked = 16 * 2**20, 10
    folder = plain_models.widener(tmp_path / "wide", reply_bytes // 4)
    one = np.array([[1.5]], np.float32).tobytes()
    with Daemon(folder, kv_memory_bytes=0, max_unread_bytes=2 * reply_bytes) as daemon:
        before = most = rss_bytes(daemon.ready().pid)
        with Peer(daemon.endpoint, RCVHWM=1, RCVBUF=4096) as slow, Client(daemon.endpoint) as other:
            for number in range(asked):
                slow.send_frames(widen(number), one)

            def all_ran() -> bool:
                nonlocal most
                most = max(most, rss_bytes(daemon.pid))
                front = daemon.status()["front"]
                return bool(front["counts"].get("infer") == asked and front["live_requests"] == 0)

            daemon.until(all_ran, "all to be run")
            assert most - before < 5 * reply_bytes  # the ceiling, one on its way in, and what else a process does
            answer = other.infer(inputs={"x": Tensor("float32", (1, 1), one)})
            assert answer.outputs["y"].data == one * (reply_bytes // 4)
            ends = [msgpack.unpackb(slow.receive_frames()[0]) for _ in range(asked)]
            codes = [end.get("code") for end in ends]
            assert 2 <= codes.count(None) < asked
            assert codes.count("slow_consumer") == asked - codes.count(None)
            slow.send_frames(widen(99), one)
            assert len(slow.receive_frames()[1]) == reply_bytes  # it has read: it is served again


def test_who_has_read_everything_is_not_called_slow_for_what_others_leave_unread(tmp_path: Path) -> None:
    reply_bytes, asked = 4 * 2**20, 6
    folder = plain_models.widener(tmp_path / "wide", reply_bytes // 4)
    ceilings = {"max_unread_bytes": 2 * reply_bytes, "max_pending_bytes": 3 * reply_bytes - 1, "slow_consumer_s": 600}
    with (
        Daemon(folder, kv_memory_bytes=0, **ceilings) as daemon,
        Peer(daemon.ready().endpoint, RCVHWM=1, RCVBUF=4096) as slow,
        Client(daemon.endpoint) as other,
    ):
        for number in range(asked):
            slow.send_frames(widen(number), bytes(4))
        daemon.until(lambda: daemon.status()["front"]["counts"].get("infer") == asked, "all to be asked")
        daemon.until(lambda: not daemon.status()["front"]["live_requests"], "all to be run")
        with pytest.raises(Busy, match="other clients"):
            other.infer(inputs={"x": Tensor("float32", (1, 1), bytes(4))})
        for _ in range(asked):
            slow.receive_frames()
        answer = other.infer(inputs={"x": Tensor("float32", (1, 1), bytes(4))})
        assert len(answer.outputs["y"].data) == reply_bytes


def widen(number: int) -> bytes:
    """The header of a request to the model with large answers; one float goes with it."""
    tensor = {"dtype": "float32", "shape": [1, 1], "frame": 0}
    return pack({"v": 1, "id": number, "op": "infer", "model": "wide", "inputs": {"x": tensor}})


def test_the_largest_reply_arrives(tmp_path: Path) -> None:
    width = 15 * 2**20  # 60 MiB; more than the front may take for anything else
    with Daemon(plain_models.widener(tmp_path / "wide", width), kv_memory_bytes=0) as daemon:
        with Client(daemon.ready().endpoint) as client:
            answer = client.infer(inputs={"x": Tensor("float32", (1, 1), bytes(4))})
        assert len(answer.outputs["y"].data) == 4 * width
        assert "connections cut" not in daemon.log()


def test_a_manifest_that_does_not_fit_is_told(tmp_path: Path) -> None:
    folder = plain_models.mean_colour(tmp_path / "colours")
    (folder / "edged.toml").write_text("[image]\nsize = [5, 5]\n")
    with Daemon(folder) as daemon:
        daemon.until(daemon.socket.exists, "the daemon listens")
        with Client(daemon.endpoint) as client:
            daemon.until(lambda: client.models()[0].state == "failed", "the model is refused")
            model = client.models()[0]
    assert model.reason is not None
    assert "makes [n, 3, 5, 5]" in model.reason
    assert str(tmp_path) not in model.reason


# ---- commands


def test_infer_command(digits: Daemon, tmp_path: Path) -> None:
    shown = _edged(digits, "infer", "digits", "--image", str(DIGITS[0]))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0].split()[0] == DIGITS[0].name[0]
    assert len(shown.stdout.splitlines()) == 3
    as_json = _edged(digits, "infer", "digits", "-i", str(DIGITS[4]), "-i", str(DIGITS[6]), "--top-k", "1", "--json")
    lines = [json.loads(line) for line in as_json.stdout.splitlines()]
    assert [(line["file"], line["labels"][0]["label"]) for line in lines] == [("2-0.png", "2"), ("3-0.png", "3")]
    np.save(tmp_path / "in.npy", np.zeros((1, 1, 8, 8), np.float32))
    tensors = _edged(digits, "infer", "digits", "--input", f"pixels={tmp_path}/in.npy", "--out", str(tmp_path / "out"))
    assert tensors.stdout.startswith("scores  float32 [1, 10]:"), tensors.stderr
    assert np.load(tmp_path / "out" / "scores.npy").shape == (1, 10)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"nothing")
    refused = _edged(digits, "infer", "digits", "--image", str(bad), "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["error"]["code"] == "invalid_request"
    assert _edged(digits, "infer", "digits").returncode == 2


def test_watch_command_follows_a_folder(digits: Daemon, tmp_path: Path) -> None:
    shutil.copy(DIGITS[0], tmp_path / "was-there.png")
    command = [sys.executable, "-m", "edged", "watch", "digits", str(tmp_path), "--count", "3", "-e", digits.endpoint]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        try:
            assert "watching" in watching.stderr.readline()  # what comes before that is not new
            lines = []
            for number, path in enumerate((DIGITS[2], None, DIGITS[8])):
                _arrive(tmp_path, number, path)
                lines.append(json.loads(watching.stdout.readline()))
            assert watching.wait(60) == 0
        finally:
            watching.kill()
    assert [line["frame"] for line in lines] == ["0.png", "1.png", "2.png"]
    assert lines[0]["labels"][0]["label"] == "1"
    assert lines[1]["error"]["code"] == "invalid_request"
    assert lines[2]["labels"][0]["label"] == "4"


def _arrive(folder: Path, number: int, image: Path | None) -> None:
    """As a camera's program would: written aside, then renamed."""
    aside = folder / f".{number}"
    aside.write_bytes(image.read_bytes() if image else b"not an image")
    aside.rename(folder / f"{number}.png")
