"""`edged status` and `edged top`: how the daemon is, once or all the time."""

from __future__ import annotations

import json as jsonlib
import time
from typing import Annotated

import typer

from edged.cli.options import Endpoint, Json


def status(endpoint: Endpoint = None, json: Json = False) -> None:
    """Show models, provider, memory, queue and throughput."""
    from edged.client import Client

    with Client(endpoint) as client:
        found, where = client.status(), client.endpoint
    if json:
        typer.echo(jsonlib.dumps(found.raw))
        return
    from rich.console import Console

    from edged.cli.screen import status_view

    Console().print(status_view(found, where))


def top(
    interval: Annotated[
        float, typer.Option("--interval", "-n", min=0.1, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    count: Annotated[int, typer.Option("--count", "-c", min=0, help="Leave after so many looks; 0: never.")] = 0,
    endpoint: Endpoint = None,
) -> None:
    """The same, renewed until Ctrl-C."""
    from rich.console import Console
    from rich.live import Live

    from edged.cli.screen import status_view
    from edged.client import Client

    looks = 0
    console = Console()
    try:
        with Client(endpoint) as client, Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                live.update(status_view(client.status(), client.endpoint), refresh=True)
                looks += 1
                if looks == count:
                    return
                time.sleep(interval)
    except KeyboardInterrupt:
        return
