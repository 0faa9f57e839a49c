"""`edged remove`: take a model off the disk."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from edged.cli.options import Endpoint, Json
from edged.errors import OwnerError


def remove(
    model: Annotated[str, typer.Argument(help="Name of a model in the store.")],
    endpoint: Endpoint = None,
    force: Annotated[
        bool, typer.Option("--force", help="Even if the daemon serves it or the settings name it.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove a model and every version of it. Not one that is pinned, that serves, or that shipped with edged."""
    from edged.config import load
    from edged.store.library import remove as remove_model
    from edged.store.notes import read_notes
    from edged.store.room import size

    settings, _ = load()
    name = read_notes(settings.state_path).aliases.get(model, model)
    if not force:
        if settings.model in (name, model):
            raise OwnerError(f"{name} is the model of the settings; set another `model` first, or --force")
        if name in _loaded(endpoint):
            raise OwnerError(f"the daemon has {name} in memory; unload it or stop the daemon first, or --force")
    freed_bytes = remove_model(settings.state_path, name)
    if json:
        typer.echo(jsonlib.dumps({"name": name, "freed_bytes": freed_bytes}))
    else:
        typer.echo(f"removed: {name}, {size(freed_bytes)} freed")


def _loaded(endpoint: str | None) -> set[str]:
    """What the daemon has in memory; nothing where none answers."""
    from edged.client import Client
    from edged.client.errors import ClientError

    try:
        with Client(endpoint) as client:
            return {model.name for model in client.models() if model.state in ("ready", "loading")}
    except ClientError:
        return set()
