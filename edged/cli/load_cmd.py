"""`edged load` and `edged unload`: a model of the daemon into memory, and out again. For admins."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from edged.cli.options import Endpoint, Json
from edged.cli.printable import printable

Model = Annotated[str, typer.Argument(help="Name of an installed model.")]


def load(
    model: Model,
    keep: Annotated[
        float | None,
        typer.Option(min=0, max=86_400, help="Unload it after so many idle seconds; 0: never. Default: model_idle_s."),
    ] = None,
    endpoint: Endpoint = None,
    json: Json = False,
) -> None:
    """Bring a model into memory; idle ones leave if it needs their room. Returns when it can answer."""
    from edged.client import Client

    with Client(endpoint) as client:
        found = client.load(model, keep_s=keep)
    _say(found.name, found.state, json=json)


def unload(model: Model, endpoint: Endpoint = None, json: Json = False) -> None:
    """Take an idle model out of memory."""
    from edged.client import Client

    with Client(endpoint) as client:
        found = client.unload(model)
    _say(found.name, found.state, json=json)


def _say(name: str, state: str, *, json: bool) -> None:
    typer.echo(jsonlib.dumps({"name": name, "state": state}) if json else f"{printable(name)}: {printable(state)}")
