"""`edged config`: the effective settings, where each came from, and whether they can work."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from edged.cli.options import Json

app = typer.Typer(
    help="Show and check the settings.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)
File = Annotated[Path | None, typer.Option("--config", help="Settings file. Default: /etc/edged/edged.toml.")]


@app.command()
def show(config: File = None, json: Json = False) -> None:
    """Print every setting, its effective value and where it came from."""
    from edged.config import load
    from edged.protocol.endpoint import listen_endpoint

    settings, origin = load(file=config)
    values = settings.model_dump()
    for name, effective in (("endpoint", listen_endpoint()), ("state_dir", str(settings.state_path))):
        if not values[name]:
            values[name] = effective
    if json:
        typer.echo(jsonlib.dumps({name: {"value": value, "origin": origin[name]} for name, value in values.items()}))
        return
    name_width = max(map(len, values))
    shown = {name: jsonlib.dumps(value) for name, value in values.items()}  # as one would write it in the file
    value_width = min(40, max(map(len, shown.values())))
    for name, value in shown.items():
        typer.echo(f"{name:<{name_width}} = {value:<{value_width}}  # {origin[name]}")


@app.command()
def check(config: File = None, json: Json = False) -> None:
    """Check the settings and that the model they name is there and whole, without starting anything."""
    from edged.config import load
    from edged.store.any_model import read_any
    from edged.store.models import find_model

    settings, _ = load(file=config)
    model = find_model(settings.model, settings.state_path)
    manifest = read_any(model.folder)
    if json:
        typer.echo(jsonlib.dumps({"ok": True, "model": model.name, "folder": str(model.folder)}))
    else:
        typer.echo(f"settings are valid; model {model.name} ({manifest.kind}) is in {model.folder}")
