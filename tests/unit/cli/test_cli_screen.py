"""The status page: what a person must not miss is on it, whatever the daemon leaves out or adds."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from edged.cli.screen import status_view
from edged.client.replies import status_of

ENGINE = {
    "running": 1,
    "waiting": 2,
    "decode_tps": 8.84,
    "prefill_tps": 26.0,
    "kv": {"running_bytes": 2**20, "idle_bytes": 2**21, "most_tokens": 4096},
    "memory": {
        "kv_bytes": 2**30,
        "terms": {"headroom": 2**31, "weights_mapped": -(2**29), "reserve": -(2**29)},
        "pressure": "none",
    },
}


def page(engine: dict[str, Any] | None = None, front: dict[str, Any] | None = None, **model: Any) -> str:
    raw = {"name": "phi", "state": "ready", "provider": "CPUExecutionProvider", "engine": engine or {}, **model}
    status = {"version": "1.2.3", "uptime_s": 75.0, "draining": False, "front": front or {}, "models": [raw]}
    console = Console(width=100, color_system=None)
    with console.capture() as captured:
        console.print(status_view(status_of(status), "ipc:///x"))
    return captured.get()


def test_a_healthy_daemon_on_one_page() -> None:
    shown = page(ENGINE, {"rss_bytes": 40 * 2**20, "connections": 3, "live_requests": 1, "counts": {"chat": 7}})
    for words in (
        "edged 1.2.3 at ipc:///x, up 1 min 15 s", "40.0 MiB resident, 3 connections", "chat 7", "phi",
        "1 running, 2 waiting", "9 tokens/s a stream, prompts 26 tokens/s", "weights", "512 MiB", "KV running",
        "the longest request now: 4096 tokens",
    ):  # fmt: skip
        assert words in shown
    for alarm in ("pressure", "slowed", "instead of", "admits nobody", "quarantine", "not reading", "restarts"):
        assert alarm not in shown


@pytest.mark.parametrize(
    ("engine", "front", "model", "words"),
    [
        ({**ENGINE, "memory": {**ENGINE["memory"], "pressure": "high"}}, {}, {}, "memory pressure is high"),  # type: ignore[dict-item]
        ({**ENGINE, "admitting": False}, {}, {}, "admits nobody now"),
        ({**ENGINE, "heat": {"share": 0.5, "reason": "82 °C"}}, {}, {}, "slowed to 50%: 82 °C"),
        (ENGINE, {"blocked_clients": 2}, {}, "2 clients"),
        (ENGINE, {"quarantined_inputs": 1}, {}, "1 inputs that ended the engine"),
        (ENGINE, {}, {"restarts": 3, "last_end": "signal SIGSEGV"}, "3, last end: signal SIGSEGV"),
        ({}, {}, {"state": "failed", "reason": "model.onnx: not an ONNX graph"}, "failed: model.onnx: not an ONNX"),
        (
            ENGINE,
            {},
            {"selection": {"wanted": "cuda", "fell_back": True, "why": "no device", "passed_over": []}},
            "CPUExecutionProvider instead of cuda: no device",
        ),
        (
            ENGINE,
            {},
            {"selection": {"passed_over": [{"provider": "qnn", "reason": "no NPU"}, {"provider": "x", "reason": "y"}]}},
            "qnn: no NPU",
        ),
    ],
)
def test_what_a_person_must_not_miss(
    engine: dict[str, Any], front: dict[str, Any], model: dict[str, Any], words: str
) -> None:
    assert words in page(engine, front, **model)


def test_who_holds_the_memory_the_largest_first() -> None:
    slots = [{"owner": f"session s{number}", "tokens": number, "kv_bytes": number * 1024} for number in range(1, 12)]
    shown = page({**ENGINE, "slots": slots})
    assert shown.index("session s11") < shown.index("session s10") < shown.index("and 3 more")
    assert "session s3 " not in shown


@pytest.mark.parametrize("engine", [{}, {"kv": 3, "memory": []}, {"slots": "?", **ENGINE}, {"heat": None}])
def test_what_the_daemon_leaves_out_or_changes_breaks_no_page(engine: dict[str, Any]) -> None:
    assert "phi" in page(engine)


def test_a_name_cannot_drive_the_terminal() -> None:
    assert "\x1b[2J" not in page(ENGINE, name="a\x1b[2J", selection={"why": "\x1b[2J"})
