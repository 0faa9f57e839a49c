"""`edged models`: the models of the daemon and those on disk; their other names, and pins."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from edged.cli.options import Endpoint, Json
from edged.cli.printable import human_bytes, printable
from edged.errors import OwnerError

app = typer.Typer(
    help="List models: what the daemon has, and what is on disk. Give them other names, pin them.",
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)

Name = Annotated[str, typer.Argument(help="Name of an installed model.")]


@app.callback()
def models(
    ctx: typer.Context,
    endpoint: Endpoint = None,
    disk: Annotated[bool, typer.Option("--disk", help="Only what is on disk; ask no daemon.")] = False,
    json: Json = False,
) -> None:
    """List models: state, provider, context, size; version, space on disk, other names, pins.

    Where no daemon answers, what is on disk.
    """
    if ctx.invoked_subcommand:
        return
    from edged.client import Client, DaemonNotFound

    loaded: list[dict[str, Any]] = []
    if not disk:
        try:
            with Client(endpoint) as client:
                loaded = [model.raw for model in client.models()]
        except DaemonNotFound as error:
            if endpoint is not None:
                raise
            typer.echo(f"{error}\nWhat is on disk:", err=True)
    stored = _on_disk()
    rows = [{**model, "installed": stored.pop(str(model.get("name")), None)} for model in loaded]
    rows += [{"name": name, "state": "installed", "installed": facts} for name, facts in stored.items()]
    if json:
        typer.echo(jsonlib.dumps(rows))
        return
    for row in rows:
        typer.echo(f"{printable(str(row['name']))}: " + ", ".join(_words(row)))


@app.command()
def alias(other: Annotated[str, typer.Argument(help="The new name.")], model: Name, json: Json = False) -> None:
    """Give a model one more name: `edged models alias phi phi3.5-mini`."""
    from edged.store.models import find_model
    from edged.store.notes import read_notes, with_alias, write_notes

    state = _state()
    found = find_model(model, state)
    if other in _names(state):
        raise OwnerError(f"{other} is the name of an installed model already")
    write_notes(state, with_alias(read_notes(state), other, found.name))
    _say({"alias": other, "model": found.name}, f"{other} is now another name of {found.name}", json=json)


@app.command()
def unalias(other: Annotated[str, typer.Argument(help="The name to take away.")], json: Json = False) -> None:
    """Take another name away again; the model stays."""
    from edged.store.notes import read_notes, without_alias, write_notes

    state = _state()
    write_notes(state, without_alias(read_notes(state), other))
    _say({"alias": other, "model": None}, f"{other} is no name any more", json=json)


@app.command()
def pin(model: Name, json: Json = False) -> None:
    """Keep a model as it is: neither removed nor replaced by `pull` and `import`. Signed updates still apply."""
    _pin(model, json=json, wanted=True)


@app.command()
def unpin(model: Name, json: Json = False) -> None:
    """Let a pinned model go again."""
    _pin(model, json=json, wanted=False)


def _pin(model: str, *, json: bool, wanted: bool) -> None:
    from edged.store.models import find_model
    from edged.store.notes import read_notes, write_notes

    state = _state()
    found, notes = find_model(model, state), read_notes(state)
    if found.origin != "store":
        raise OwnerError(f"{found.name} ships with edged: it can be neither removed nor replaced by a pull")
    pinned = notes.pinned | {found.name} if wanted else notes.pinned - {found.name}
    write_notes(state, replace(notes, pinned=pinned))
    _say({"model": found.name, "pinned": wanted}, f"{found.name} is {'' if wanted else 'not '}pinned", json=json)


def _on_disk() -> dict[str, dict[str, Any]]:
    """Every installed model by name: where it came from, and what the owner noted of it."""
    from edged.store.models import installed
    from edged.store.notes import read_notes
    from edged.store.origin import read_origin
    from edged.store.room import sizes
    from edged.store.slot_view import SlotView

    state = _state()
    notes, held = read_notes(state), sizes(state)
    found: dict[str, dict[str, Any]] = {}
    for model in installed(state):
        came = read_origin(SlotView(state, model.name), model.version) if model.version else None
        found[model.name] = {
            "origin": model.origin,
            "version": model.version,
            "folder": str(model.folder),
            "disk_bytes": held.get(model.name, 0),
            "pinned": model.name in notes.pinned,
            "aliases": list(notes.of(model.name)),
            "source": came.what if came else None,
        }
    return found


def _words(row: Mapping[str, Any]) -> list[str]:
    stored = row["installed"] or {}
    facts = [
        row["state"],
        row.get("provider") or "",
        f"{row['context_tokens']} tokens of context" if row.get("context_tokens") else "",
        f"weights {human_bytes(row['weights_bytes'])}" if row.get("weights_bytes") else "",
        f"KV {human_bytes(row['kv_bytes_per_token'])} a token" if row.get("kv_bytes_per_token") else "",
        "ships with edged" if stored.get("origin") == "embedded" else "",
        f"version {stored['version']}" if stored.get("version") else "",
        f"{human_bytes(stored['disk_bytes'])} on disk" if stored.get("disk_bytes") else "",
        f"also called {', '.join(stored['aliases'])}" if stored.get("aliases") else "",
        "pinned" if stored.get("pinned") else "",
        row.get("reason") or "",
    ]
    return [printable(str(fact)) for fact in facts if fact]


def _names(state: Path) -> set[str]:
    from edged.store.models import installed

    return {model.name for model in installed(state)}


def _state() -> Path:
    from edged.config import load

    return load()[0].state_path


def _say(facts: Mapping[str, Any], text: str, *, json: bool) -> None:
    typer.echo(jsonlib.dumps(facts) if json else text)
