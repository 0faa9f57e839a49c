"""Pictures in chats through a real daemon: what the answers mean, what is told and booked, and what is refused."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
from PIL import Image, ImageDraw

from edged.client import Accepted, Answer, Client
from edged.errors import InvalidRequest, TooLarge, Unsupported
from tests.integration.raw import ROOT, Daemon, Peer

sys.path.insert(0, str(ROOT / "tools"))

from nano_vision.drawing import draw, some_look
from nano_vision.scenes import Scene, Thing

FOLDER = Path(os.environ.get("EDGED_TEST_VISION_MODEL") or ROOT / "models" / "nano-vision")
IMAGE_TOKENS = 313


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    made = io.BytesIO()
    image.save(made, kind)
    return made.getvalue()


def circle(colour: tuple[int, int, int] = (214, 40, 40), at: tuple[float, float] = (0.5, 0.5)) -> bytes:
    """Not drawn by what made the training's pictures: a bare circle on white."""
    image = Image.new("RGB", (500, 500), "white")
    x, y = at[0] * 500, at[1] * 500
    ImageDraw.Draw(image).ellipse((x - 60, y - 60, x + 60, y + 60), fill=colour)
    return png(image)


def picture(*things: Thing, display: str | None = None, seed: int = 11) -> bytes:
    return png(draw(Scene(things, display), some_look(Random(seed))))


def parts(text: str, *frames: int, detail: str = "auto") -> list[dict[str, Any]]:
    return [*({"type": "image", "frame": frame, "detail": detail} for frame in frames), {"type": "text", "text": text}]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.fixture(scope="module")
def served() -> Iterator[Daemon]:
    with Daemon(FOLDER, kv_memory_bytes=64 * 2**20) as daemon:
        yield daemon.ready()


@pytest.fixture
def client(served: Daemon) -> Iterator[Client]:
    with Client(served.endpoint) as made:
        yield made


def ask(client: Client, text: str, *pictures: bytes, **options: Any) -> Answer:
    return client.chat([user(parts(text, *range(len(pictures))))], attachments=pictures, max_tokens=80, **options)


# ---- what it sees


def test_the_red_circle_is_called_a_red_circle(client: Client) -> None:
    answer = ask(client, "what is this?", circle())
    assert "red circle" in answer.text.lower()
    assert "center" in answer.text.lower()
    assert answer.finish_reason == "stop"


def test_shapes_are_named_with_their_places(client: Client) -> None:
    seen = ask(client, "What do you see?", picture(Thing(0, "square", "blue"), Thing(8, "triangle", "green"))).text
    assert "blue square at the top left" in seen.lower()
    assert "green triangle at the bottom right" in seen.lower()


def test_shapes_are_counted(client: Client) -> None:
    assert ask(client, "How many circles are there?", circle()).text == "red circle 1: 1"
    assert ask(client, "How many squares are there?", circle()).text == "red circle: 0"


@pytest.mark.parametrize("number", ["7", "42", "80.5", "316"])
def test_a_display_is_read(client: Client, number: str) -> None:
    assert ask(client, "What does the display read?", picture(display=number)).text == number


def test_jpeg_and_webp_are_seen_too(client: Client) -> None:
    image = Image.open(io.BytesIO(circle()))
    for kind in ("JPEG", "WEBP"):
        assert "red circle" in ask(client, "what is this?", png(image, kind)).text.lower()


# ---- turns


def test_text_turns_after_a_picture_read_only_what_is_new(client: Client) -> None:
    shown = circle()
    first = [user(parts("what is this?", 0))]
    said = client.chat(first, attachments=[shown], max_tokens=80, session="look")
    more = [*first, {"role": "assistant", "content": said.text}, user("How many circles are there?")]
    second = client.chat(more, attachments=[shown], max_tokens=20, session="look")
    assert second.text == "red circle 1: 1"
    assert second.usage.cached_tokens > IMAGE_TOKENS
    client.session_close("look")


def test_a_second_picture_in_a_later_turn(client: Client) -> None:
    pictures = [circle(), picture(Thing(0, "square", "blue"))]
    first = [user(parts("what is this?", 0))]
    said = client.chat(first, attachments=pictures[:1], max_tokens=80, session="two")
    more = [*first, {"role": "assistant", "content": said.text}, user(parts("what is this?", 1))]
    second = client.chat(more, attachments=pictures, max_tokens=80, session="two")
    assert "blue square" in second.text.lower()
    assert second.accepted.image_tokens == 2 * IMAGE_TOKENS
    client.session_close("two")


def test_another_picture_is_not_taken_for_the_one_before(client: Client) -> None:
    """The prompts differ in nothing but the pixels."""
    red = ask(client, "what is this?", circle(), session="same")
    blue = ask(client, "what is this?", circle((40, 80, 210)), session="same")
    assert "red" in red.text.lower()
    assert "blue" in blue.text.lower()
    assert blue.usage.cached_tokens == 0
    client.session_close("same")


# ---- what is told, booked and refused


def test_what_a_picture_costs_is_told_before_it_is_read(client: Client, served: Daemon) -> None:
    with client.chat([user(parts("what is this?", 0))], attachments=[circle()], max_tokens=8, stream=True) as stream:
        first = next(event for event in stream.events() if isinstance(event, Accepted))
        answer = stream.result()
    assert first.image_tokens == IMAGE_TOKENS
    assert first.prompt_tokens == answer.usage.prompt_tokens > IMAGE_TOKENS
    per_token = served.model()["kv_bytes_per_token"]
    assert first.kv_bytes >= (first.prompt_tokens + 8) * per_token


def test_pictures_past_the_context_are_refused_with_numbers(client: Client) -> None:
    with pytest.raises(TooLarge) as refused:
        client.chat([user(parts("what changed?", *[0] * 14))], attachments=[circle()])
    assert refused.value.max_tokens_fit == 4096


def test_attachments_that_are_no_pictures_or_missing(client: Client, served: Daemon) -> None:
    engine = served.engine_pid()
    with pytest.raises(InvalidRequest, match="not PNG, JPEG or WebP"):
        ask(client, "what is this?", b"GIF89a" + bytes(100))
    with pytest.raises(InvalidRequest, match="frame 1 was not sent"):
        client.chat([user(parts("what is this?", 0, 1))], attachments=[circle()])
    assert "red circle" in ask(client, "what is this?", circle()).text.lower()
    assert served.engine_pid() == engine


def test_a_text_model_says_that_it_takes_no_pictures() -> None:
    with Daemon() as daemon, Client(daemon.ready().endpoint) as client, pytest.raises(Unsupported, match="image"):
        ask(client, "what is this?", circle())


# ---- while pictures are read


def many_pictures(peer: Peer, **fields: Any) -> int:
    """A request whose pictures take a while: twelve of them, all read in one native call."""
    made = {"v": 1, "id": 900 + len(fields), "op": "chat", "stream": True, "max_tokens": 4}
    request = made | {"messages": [user(parts("what is this?", *[0] * 12))], **fields}
    peer.send_frames(msgpack.packb(request), circle())
    number: int = request["id"]
    return number


def test_a_cancel_holds_while_pictures_are_read(served: Daemon, client: Client) -> None:
    engine = served.engine_pid()
    with Peer(served.endpoint) as peer:
        number = many_pictures(peer)
        peer.until_event(number, "accepted")
        peer.ask("cancel", target=number)
        ended = peer.last(number)
    assert ended["finish_reason"] == "cancelled"
    assert ended["usage"]["completion_tokens"] == 0  # it was ended before its first word
    assert "red circle" in ask(client, "what is this?", circle()).text.lower()
    assert served.engine_pid() == engine
    served.until(lambda: served.model()["engine"]["kv"]["running_bytes"] == 0, "its KV memory to be free")


def test_a_deadline_holds_while_pictures_are_read(served: Daemon) -> None:
    with Peer(served.endpoint) as peer:
        ended = peer.last(many_pictures(peer, deadline_ms=150))
    assert ended.get("finish_reason") == "deadline" or ended.get("code") == "deadline_exceeded"


def test_an_engine_that_reads_on_for_nobody_ends_itself_and_loses_nothing() -> None:
    settings = {"kv_memory_bytes": 64 * 2**20, "abandoned_call_s": 0.05, "max_running": 1, "ignore_eos": True}
    with Daemon(FOLDER, **settings) as daemon, Peer(daemon.ready().endpoint) as other, Peer(daemon.endpoint) as peer:
        engine = daemon.engine_pid()
        first = other.send("chat", messages=[user("How many circles?")], stream=True, max_tokens=3900)
        other.until_event(first, "delta")
        number = many_pictures(peer)
        peer.until_event(number, "queued")
        queued = {"v": 1, "id": "queued", "op": "chat", "messages": [user(parts("what is this?", 0))], "max_tokens": 8}
        other.send_frames(msgpack.packb(queued), circle())
        other.until_event("queued", "queued")
        other.ask("cancel", target=first)
        peer.until_event(number, "accepted")
        waits = other.send("chat", messages=[user("How many circles?")], max_tokens=4)
        dropped = other.send("chat", messages=[user("How many squares?")], max_tokens=4)
        late = other.send("chat", messages=[user("How many rings?")], max_tokens=4, deadline_ms=60)
        other.ask("cancel", target=dropped)
        peer.ask("cancel", target=number)
        assert peer.last(number)["finish_reason"] == "cancelled"
        assert other.last(dropped)["code"] == "cancelled"
        assert other.last(late)["code"] == "deadline_exceeded"
        assert "red circle" in other.last("queued")["text"].lower()
        assert other.last(waits)["ev"] == "done"
        assert daemon.engine_pid() != engine
        assert daemon.model()["restarts"] == 0
        assert "error.engine_lost" not in daemon.status()["front"]["counts"]


def test_streams_that_stand_still_meanwhile_are_told() -> None:
    settings = {"kv_memory_bytes": 64 * 2**20, "ignore_eos": True}  # the stream must not end of its own accord
    with Daemon(FOLDER, **settings) as daemon, Peer(daemon.ready().endpoint) as other, Peer(daemon.endpoint) as peer:
        running = other.send("chat", messages=[user("How many circles?")], stream=True, max_tokens=3900)
        other.until_event(running, "delta")
        peer.last(many_pictures(peer))
        timings = other.last(running)["timings"]
    assert timings["stalled_ms"] > 0
