"""The daemon's status as Prometheus reads it, over real listeners."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edged.errors import ConfigError

pytest.importorskip("prometheus_client", reason="the extra `metrics` is not installed")

from edged.metrics import StatusCollector, make_server

STATUS: dict[str, Any] = {
    "uptime_s": 12.5,
    "front": {"rss_bytes": 40_000_000, "connections": 3, "counts": {"chat": 7, "error.busy": 2}, "live_requests": 1},
    "updates": {"nano": "watching"},
    "models": [
        {
            "name": "nano",
            "state": "ready",
            "provider": "cpu",
            "restarts": 1,
            "served": {
                "prompt_tokens": 11,
                "completion_tokens": 22,
                "ttft_sum_s": 0.5,
                "ttft_le_s": {"0.1": 1, "+Inf": 3},
            },
            "engine": {"running": 1, "waiting": 4, "kv": {"budget_bytes": 1000}, "memory": {"rss_bytes": 99}},
        }
    ],
}


@contextmanager
def _serving(listen: str, status: Mapping[str, Any] | None) -> Iterator[int]:
    with make_server(listen, StatusCollector(lambda: status, lambda: {"cpu": 51.0})) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


def _lines(text: str) -> dict[str, float]:
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in rows}


def _scrape(port: int) -> dict[str, float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return _lines(text)


def test_a_scrape_shows_what_status_says() -> None:
    with _serving("0", STATUS) as port:
        found = _scrape(port)
    assert found["edged_up"] == 1
    assert found["edged_front_resident_bytes"] == 40_000_000
    assert found['edged_requests_total{op="chat"}'] == 7
    assert found['edged_errors_total{code="busy"}'] == 2
    assert found['edged_model_ready{model="nano",provider="cpu"}'] == 1
    assert found['edged_engine_restarts_total{model="nano"}'] == 1
    assert found['edged_requests_waiting{model="nano"}'] == 4
    assert found['edged_kv_budget_bytes{model="nano"}'] == 1000
    assert found['edged_temperature_celsius{zone="cpu"}'] == 51
    assert found['edged_tokens_total{kind="completion",model="nano"}'] == 22
    assert found['edged_ttft_seconds_bucket{le="0.1",model="nano"}'] == 1
    assert found['edged_ttft_seconds_count{model="nano"}'] == 3
    assert found['edged_update_phase{model="nano",phase="watching"}'] == 1


def test_a_daemon_that_does_not_answer_is_down_and_the_box_still_has_a_temperature() -> None:
    with _serving("0", None) as port:
        assert _scrape(port) == {"edged_up": 0.0, 'edged_temperature_celsius{zone="cpu"}': 51.0}


def test_a_unix_socket_is_for_its_group_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    for _ in range(2):  # the second time over what the first left
        with _serving(f"unix:{path}", STATUS), socket.socket(socket.AF_UNIX) as client:
            assert path.stat().st_mode & 0o777 == 0o660
            client.settimeout(10)
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: client.recv(65536), b"")).decode()
        assert "edged_up 1.0" in text


@pytest.mark.parametrize("listen", ["0.0.0.0:9464", "elsewhere", "70000", "unix:/no/such/folder/s"])
def test_no_other_address_is_to_be_had(listen: str) -> None:
    with pytest.raises(ConfigError, match="--listen"):
        make_server(listen, StatusCollector(lambda: None, dict))
