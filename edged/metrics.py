"""The daemon's `status` as Prometheus metrics, and an HTTP listener for them. Off unless `edged metrics` is started.

A process of its own, beside the daemon: it asks `status` when it is scraped, so the front does nothing for it in
between and gets no network. Needs the extra `metrics` (prometheus-client).
"""

from __future__ import annotations

import os
import socketserver
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from edged.errors import ConfigError

Status = Mapping[str, Any]

FRONT = {
    "rss_bytes": ("edged_front_resident_bytes", "Resident memory of the front process."),
    "connections": ("edged_connections", "Open client connections."),
    "blocked_clients": ("edged_blocked_clients", "Clients that leave replies unread."),
    "live_requests": ("edged_live_requests", "Requests accepted and not ended."),
    "quarantined_inputs": ("edged_quarantined_inputs", "Inputs refused since they ended an engine twice."),
}
ENGINE = {
    "running": ("edged_requests_running", "Requests stepped in turn."),
    "waiting": ("edged_requests_waiting", "Requests in the engine's queue."),
    "prefill_tps": ("edged_prefill_tokens_per_second", "Measured pace of reading prompts."),
    "decode_tps": ("edged_decode_tokens_per_second", "Measured pace of one stream's tokens."),
}
KV = {
    "budget_bytes": ("edged_kv_budget_bytes", "KV memory that may be booked."),
    "running_bytes": ("edged_kv_running_bytes", "KV memory booked by running requests."),
    "idle_bytes": ("edged_kv_idle_bytes", "KV memory kept for sessions and shared beginnings."),
}


class StatusCollector(Collector):
    """`status()` gives the daemon's map, or None when it does not answer; `celsius()` the zones by name."""

    def __init__(self, status: Callable[[], Status | None], celsius: Callable[[], Mapping[str, float]]) -> None:
        self._status, self._celsius = status, celsius

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        status = self._status()
        yield GaugeMetricFamily("edged_up", "Whether the daemon answers.", value=float(status is not None))
        heat = GaugeMetricFamily("edged_temperature_celsius", "Sensors that our work heats.", labels=["zone"])
        for zone, degrees in self._celsius().items():
            heat.add_metric([zone], degrees)
        yield heat
        if status is not None:
            yield GaugeMetricFamily("edged_uptime_seconds", "Since the daemon started.", value=status["uptime_s"])
            yield from _front(_map(status, "front"))
            yield from _models([entry for entry in status.get("models", []) if isinstance(entry, Mapping)])
            update = GaugeMetricFamily("edged_update_phase", "Where an update stands: 1.", labels=["model", "phase"])
            for model, phase in _map(status, "updates").items():
                update.add_metric([model, str(phase)], 1.0)
            yield update


def _front(front: Status) -> Iterator[Metric]:
    for key, (name, about) in FRONT.items():
        if front.get(key) is not None:
            yield GaugeMetricFamily(name, about, value=front[key])
    requests = CounterMetricFamily("edged_requests", "Requests by op.", labels=["op"])
    errors = CounterMetricFamily("edged_errors", "Error answers by code.", labels=["code"])
    for name, count in _map(front, "counts").items():
        kind, _, code = name.partition("error.")
        (errors if code else requests).add_metric([code or kind], count)
    yield requests
    yield errors


def _models(models: list[Status]) -> Iterator[Metric]:
    ready = GaugeMetricFamily("edged_model_ready", "Whether the model is loaded.", labels=["model", "provider"])
    restarts = CounterMetricFamily("edged_engine_restarts", "Engine processes that ended.", labels=["model"])
    resident = GaugeMetricFamily("edged_engine_resident_bytes", "Resident memory of the engine.", labels=["model"])
    for model in models:
        name = str(model.get("name"))
        ready.add_metric([name, str(model.get("provider") or "")], float(model.get("state") == "ready"))
        restarts.add_metric([name], model.get("restarts") or 0)
        rss_bytes = _map(_map(model, "engine"), "memory").get("rss_bytes")
        if rss_bytes:
            resident.add_metric([name], rss_bytes)
    yield from (ready, restarts, resident)
    yield from _served(models)
    for table, place in ((ENGINE, ("engine",)), (KV, ("engine", "kv"))):
        for key, (metric, about) in table.items():
            family = GaugeMetricFamily(metric, about, labels=["model"])
            for model in models:
                found: Status = model
                for step in place:
                    found = _map(found, step)
                if found.get(key) is not None:
                    family.add_metric([str(model.get("name"))], found[key])
            yield family


def _served(models: list[Status]) -> Iterator[Metric]:
    """What the engines that run now have answered; counters begin anew with a new version of a model."""
    tokens = CounterMetricFamily("edged_tokens", "Tokens read and written.", labels=["model", "kind"])
    ttft = HistogramMetricFamily("edged_ttft_seconds", "Time to first token.", labels=["model"])
    for model in models:
        name, served = str(model.get("name")), _map(model, "served")
        for kind in ("prompt", "completion"):
            tokens.add_metric([name, kind], served.get(f"{kind}_tokens") or 0)
        if buckets := _map(served, "ttft_le_s"):
            ttft.add_metric([name], list(buckets.items()), served.get("ttft_sum_s"))
    yield from (tokens, ttft)


def _map(where: Status, key: str) -> Status:
    found = where.get(key)
    return found if isinstance(found, Mapping) else {}


class _Quiet(WSGIRequestHandler):
    """A scrape is no event for the log; over a unix socket there is no address to name either."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def address_string(self) -> str:
        return "local"


class _UnixServer(socketserver.UnixStreamServer, WSGIServer):
    def server_bind(self) -> None:
        socketserver.UnixStreamServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0
        self.setup_environ()

    def get_request(self) -> tuple[Any, Any]:
        connection, _ = super().get_request()
        return connection, ("local", 0)


def make_server(listen: str, collector: StatusCollector) -> WSGIServer:
    """A server for `unix:/path` (mode 0660) or `PORT` (on 127.0.0.1 alone). Raises ConfigError."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    try:
        server: WSGIServer
        if listen.startswith("unix:"):
            path = Path(listen.removeprefix("unix:"))
            if path.is_socket():
                path.unlink()
            server = _UnixServer(str(path), _Quiet)
            os.chmod(path, 0o660)
        elif listen.isdecimal() and 0 <= int(listen) < 65536:
            server = WSGIServer(("127.0.0.1", int(listen)), _Quiet)
        else:
            raise ConfigError(f"--listen {listen}: give a port, or unix:/path/of/a/socket")
    except OSError as error:
        raise ConfigError(f"--listen {listen}: {error.strerror}") from error
    server.set_app(make_wsgi_app(registry))
    return server
