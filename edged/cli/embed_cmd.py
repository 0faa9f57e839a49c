"""`edged embed`: texts to vectors."""

from __future__ import annotations

import json as jsonlib
import sys
from typing import Annotated

import typer

from edged.cli.options import Endpoint, Json
from edged.client.plain import EmbedOptions

MOST_TEXTS = 256


def embed(
    model: Annotated[str, typer.Argument(help="Name of a text-embedding model.")],
    text: Annotated[
        list[str] | None, typer.Argument(help="Texts, one vector each; left out: one for each line of standard input.")
    ] = None,
    normalize: Annotated[
        bool | None, typer.Option("--normalize/--raw", help="Length 1, or as the model gives it.", show_default=False)
    ] = None,
    endpoint: Endpoint = None,
    json: Json = False,
) -> None:
    """Print the vector of each text, as a line of JSON numbers.

    If no daemon runs, a private one is started for this command.
    """
    from edged.cli.private_daemon import daemon_or_private
    from edged.client import Client

    texts = text or [line for line in sys.stdin.read().splitlines() if line.strip()]
    if not texts:
        raise typer.BadParameter("give a text, or lines of text on standard input", param_hint="TEXT")
    options: EmbedOptions = {} if normalize is None else {"normalize": normalize}
    with daemon_or_private(endpoint, model) as (found, private), Client(found) as client:
        if not private:
            options["model"] = model
        for start in range(0, len(texts), MOST_TEXTS):
            part = texts[start : start + MOST_TEXTS]
            vectors = client.embed(part, **options).vectors
            for words, vector in zip(part, vectors, strict=True):
                shown = [round(value, 6) for value in vector]
                typer.echo(jsonlib.dumps({"text": words, "vector": shown} if json else shown))
