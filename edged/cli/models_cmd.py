"""`edged models`: the models of the daemon."""

from __future__ import annotations

import json as jsonlib

import typer

from edged.cli.options import Endpoint, Json
from edged.cli.printable import human_bytes, printable


def models(endpoint: Endpoint = None, json: Json = False) -> None:
    """List the daemon's models: state, provider, context, size."""
    from edged.client import Client

    with Client(endpoint) as client:
        listed = client.models()
    if json:
        typer.echo(jsonlib.dumps([model.raw for model in listed]))
        return
    for model in listed:
        facts = [
            model.state,
            model.provider or "",
            f"{model.context_tokens} tokens of context" if model.context_tokens else "",
            f"weights {human_bytes(model.weights_bytes)}" if model.weights_bytes else "",
            f"KV {human_bytes(model.kv_bytes_per_token)} a token" if model.kv_bytes_per_token else "",
            printable(model.reason or ""),
        ]
        typer.echo(f"{printable(model.name)}: " + ", ".join(fact for fact in facts if fact))
