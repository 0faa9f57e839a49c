"""The line that `systemctl status` shows."""

from __future__ import annotations

from edged.systemd import status_text


def test_a_ready_model_shows_provider_memory_and_queue() -> None:
    facts = {"provider": "cpu", "memory": {"rss_bytes": 120_000_000}, "running": 2, "waiting": 1}
    assert status_text("nano", "ready", "", facts) == "model nano ready on cpu, memory 120 MB, 2 running, 1 waiting"


def test_what_is_not_known_yet_is_left_out() -> None:
    assert status_text("nano", "ready", "", {}) == "model nano ready"
    assert (
        status_text("nano", "loading", "reading weights", {"provider": "cpu"}) == "model nano loading reading weights"
    )


def test_other_models_that_are_ready_are_counted() -> None:
    assert status_text("nano", "unloaded", "idle", {}, others=1) == "model nano unloaded idle, 1 more model ready"


def test_a_model_that_failed_is_said_first_and_on_one_line() -> None:
    text = status_text("nano", "failed", "model.onnx: cut off\nREADY=1", {})
    assert text == "degraded: model nano failed model.onnx: cut off READY=1"
