"""Replies as dataclasses: unknown fields ignored, missing ones defaulted, errors as their own exceptions."""

from __future__ import annotations

from typing import Any

import pytest

from edged.client import Accepted, Answer, Delta, Progress, Queued, Timings, UnknownError, Usage
from edged.client import requests as client_requests
from edged.client.assembly import Assembly, result_of
from edged.client.errors import BadReply, UsageError, error_of
from edged.client.replies import Hello, made_from, models_of, status_of
from edged.errors import REQUEST_ERRORS, Busy, RequestError, TooLarge
from edged.protocol import messages
from edged.protocol.codec import pack, unpack


def event(name: str, **fields: Any) -> dict[str, Any]:
    return {"v": 1, "id": 1, "ev": name, **fields}


def test_a_whole_stream_becomes_one_answer() -> None:
    assembly = Assembly()
    replies = [
        event("queued", position=2, wait_ms=40),
        event("accepted", prompt_tokens=7, max_tokens=9, kv_bytes=4096, cached_tokens=3, from_the_future=1),
        event("progress", prompt_tokens_read=5, prompt_tokens=7),
        event("delta", text="Gr", logprobs=[{"token": 1}]),
        event("a_later_versions_event", anything=1),
        event("delta", text="üß"),
        event(
            "done",
            finish_reason="stop",
            usage={"prompt_tokens": 7, "completion_tokens": 2, "cached_tokens": 3, "new": 1},
            timings={"queue_ms": 1.5, "ttft_ms": 20.0, "decode_tps": 50.0, "throttled_ms": 0.0},
        ),
    ]
    events = [assembly.take(reply) for reply in replies]
    accepted = Accepted(prompt_tokens=7, max_tokens=9, kv_bytes=4096, cached_tokens=3)
    answer = Answer(
        "Grüß",
        "stop",
        Usage(7, 2, 3),
        Timings(queue_ms=1.5, ttft_ms=20.0, decode_tps=50.0),
        accepted,
        ({"token": 1},),
    )
    assert events == [
        Queued(2, 40), accepted, Progress(5, 7), Delta("Gr", ({"token": 1},)), None, Delta("üß"), answer,
    ]  # fmt: skip
    assert assembly.ended


def test_the_text_of_an_answer_that_was_not_streamed_is_taken_from_done() -> None:
    answer = Assembly().take(event("done", finish_reason="length", text="whole", usage={}, timings={}))
    assert isinstance(answer, Answer)
    assert answer.text == "whole"


@pytest.mark.parametrize("code", REQUEST_ERRORS)
def test_every_wire_code_is_an_exception_of_its_own(code: str) -> None:
    error = error_of(event("error", code=code, message="why", retry_after_ms=250))
    assert type(error) is REQUEST_ERRORS[code]
    assert (error.code, error.message, error.retry_after_ms) == (code, "why", 250)


def test_what_an_error_adds_is_kept() -> None:
    busy = error_of(event("error", code="busy", message="m", retryable=True, retry_after_ms=1200))
    assert isinstance(busy, Busy)
    assert (busy.retryable, busy.retry_after_ms) == (True, 1200)
    large = error_of(event("error", code="too_large", message="m", max_tokens_fit=4096))
    assert isinstance(large, TooLarge)
    assert (large.retryable, large.max_tokens_fit) == (False, 4096)


def test_a_code_of_a_later_version_is_still_an_error_of_ours() -> None:
    error = error_of(event("error", code="melted", message="too hot", retryable=True, retry_after_ms=5))
    assert isinstance(error, UnknownError)
    assert isinstance(error, RequestError)
    assert (error.wire_code, error.retryable, error.retry_after_ms) == ("melted", True, 5)
    assert "melted" in str(error)


def test_an_error_event_ends_the_answer() -> None:
    assembly = Assembly()
    with pytest.raises(Busy):
        assembly.take(event("error", code="busy", message="later"))
    assert assembly.ended
    assert assembly.answer is None


@pytest.mark.parametrize("bad", [event("done", usage=3, timings={}), event("done", usage={}, timings=[]), {"id": 1}])
def test_a_reply_of_something_else_is_named_as_such(bad: dict[str, Any]) -> None:
    with pytest.raises(BadReply, match="edged daemon"):
        Assembly().take(bad)


def test_a_result_is_a_result_or_an_exception() -> None:
    assert result_of(event("result", uptime_s=3))["uptime_s"] == 3
    with pytest.raises(BadReply):
        result_of(event("delta", text="x"))
    with pytest.raises(TooLarge):
        result_of(event("error", code="too_large", message="m"))


def test_status_and_models_keep_the_whole_map() -> None:
    model = {"name": "nano", "state": "ready", "context_tokens": 4096, "engine": {"running": 1}}
    status = status_of(event("result", version="9", uptime_s=1.5, draining=True, models=[model], front={"pid": 1}))
    assert (status.version, status.uptime_s, status.draining) == ("9", 1.5, True)
    assert (status.models[0].name, status.models[0].context_tokens) == ("nano", 4096)
    assert status.models[0].raw["engine"] == {"running": 1}
    assert status.raw["front"] == {"pid": 1}
    assert "ev" not in status.raw
    with pytest.raises(BadReply):
        models_of({"models": [1]})


def test_lists_become_tuples() -> None:
    assert made_from(Hello, {"ops": ["ping"], "models": ["nano"], "limits": {"max_frames": 16}}) == Hello(
        ops=("ping",), models=("nano",), limits={"max_frames": 16}
    )


class TestRequests:
    """What the client builds is what the daemon's own strict types accept."""

    def test_chat_with_every_option(self) -> None:
        options = {
            "model": "nano", "max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "top_k": 3, "min_p": 0.1,
            "repetition_penalty": 1.1, "frequency_penalty": 0.1, "presence_penalty": 0.1, "seed": 1, "num_beams": 1,
            "logprobs": 2, "stop": ("a", "b"), "session": "s", "deadline_ms": 5, "priority": 9,
            "response_format": {"type": "text"}, "overflow": "truncate_oldest", "tools": [],
        }  # fmt: skip
        declared = set(client_requests.ChatOptions.__annotations__) | set(
            client_requests.SamplingOptions.__annotations__
        )
        assert set(options) == declared
        sent = {**client_requests.chat("hi", options), "id": 1}
        parsed = messages.parse_request(unpack(pack(sent), max_bytes=10_000))
        assert isinstance(parsed, messages.Chat)
        assert parsed.messages[0].content == "hi"
        assert parsed.stream
        assert parsed.stops == ("a", "b")
        assert parsed.overflow == "truncate_oldest"

    def test_the_versions_agree(self) -> None:
        assert client_requests.VERSION == messages.VERSION

    def test_options_that_are_the_daemons_business_are_passed_on(self) -> None:
        assert client_requests.generate("p", {"temperature": 99})["temperature"] == 99

    def test_what_is_none_is_left_out(self) -> None:
        assert "model" not in client_requests.request("tokenize", {"text": "x", "model": None})

    @pytest.mark.parametrize("name", ["id", "op", "v", "stream", "messages", "prompt"])
    def test_the_envelope_is_not_an_option(self, name: str) -> None:
        with pytest.raises(UsageError, match=name):
            client_requests.chat("hi", {name: 1})
