"""`edged metrics`: the daemon's health for Prometheus, from a process beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from edged.cli.options import Endpoint
from edged.errors import EdgedError, OwnerError


def metrics(
    listen: Annotated[str, typer.Option("--listen", help="A port on 127.0.0.1, or unix:/path/of/a/socket.")] = "9464",
    endpoint: Endpoint = None,
) -> None:
    """Serve /metrics until stopped: queue, pace, KV, memory, temperature, errors by code, engine restarts."""
    try:
        from edged.metrics import StatusCollector, make_server
    except ModuleNotFoundError:
        raise OwnerError("metrics need one more package: pip install 'edged[metrics]'") from None
    from edged.client import Client
    from edged.hardware.thermal import read_thermal

    def status() -> Mapping[str, Any] | None:
        try:
            with Client(endpoint) as client:
                return client.status().raw
        except EdgedError:
            return None

    def celsius() -> dict[str, float]:
        return {zone.name: zone.celsius for zone in read_thermal().zones if zone.processor}

    with make_server(listen, StatusCollector(status, celsius)) as server:
        typer.echo(f"metrics at {listen}; Ctrl-C ends", err=True)
        server.serve_forever()
