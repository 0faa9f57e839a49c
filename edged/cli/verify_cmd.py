"""`edged verify`: read an installed model again, every byte."""

from __future__ import annotations

import json as jsonlib
from typing import Annotated

import typer

from edged.cli.options import Json


def verify(
    model: Annotated[str, typer.Argument(help="Name of an installed model.")],
    json: Json = False,
) -> None:
    """Compare an installed model with what was installed, and check that it is whole. Exit status 1 when it is not."""
    from edged.cli.meter import meter
    from edged.config import load
    from edged.store.library import verify as verify_version
    from edged.store.models import find_model
    from edged.store.slot_files import used_bytes
    from edged.store.vetting import check_model

    settings, _ = load()
    found = find_model(model, settings.state_path)
    check_model(found.folder)
    compared = False
    if found.version is not None:
        with meter(f"reading {found.name}", used_bytes(found.folder), quiet=json) as shown:
            compared = verify_version(settings.state_path, found.name, found.version, shown.more)
    facts = {"name": found.name, "version": found.version, "origin": found.origin, "folder": str(found.folder)}
    if json:
        typer.echo(jsonlib.dumps(facts | {"whole": True, "compared": compared}))
        return
    how = "every byte is as it was installed" if compared else "whole; there are no digests of it to compare with"
    typer.echo(f"{found.name}{' ' + found.version if found.version else ''}: {how}")
