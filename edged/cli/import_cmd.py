"""`edged import`: a model folder that is already on this box, or on a stick, into the store."""

from __future__ import annotations

import json as jsonlib
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from edged.cli.options import Json
from edged.cli.printable import printable


def import_(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A model folder: genai_config.json, or edged.toml beside a plain ONNX file.", metavar="DIR"
        ),
    ],
    name: Annotated[str, typer.Option("--name", help="Under which name. Default: the folder's.")] = "",
    json: Json = False,
) -> None:
    """Copy a model's folder into the store: checked, hashed, installed in one step. DIR stays as it is.

    DIR holds a genai_config.json and what it names, or a plain ONNX file with its edged.toml.
    """
    from edged.cli.meter import meter
    from edged.cli.pull_work import check_target
    from edged.config import load
    from edged.store.disk_errors import disk_errors
    from edged.store.library import adopt_files, install, version_of
    from edged.store.origin import Origin
    from edged.store.room import check_room
    from edged.store.slots import Slots
    from edged.store.vetting import check_model, look_through

    settings, _ = load()
    state = settings.state_path
    folder = folder.expanduser().absolute()
    target = name or re.sub(r"[^A-Za-z0-9._-]+", "-", folder.name).strip("-._")[:64]
    check_target(settings, target)
    check_model(folder)
    parts = look_through(folder)
    all_bytes = sum((folder / file).stat().st_size for file in parts.kept)
    slots = Slots(state, target)
    check_room(state, all_bytes, quota_bytes=settings.models_disk_bytes, reserve_bytes=settings.disk_reserve_bytes)
    with meter(f"copying {target}", all_bytes, quiet=json) as shown:
        version, digests = version_of(folder, parts.kept, shown.more)
    if slots.active != version:
        with disk_errors():
            aside = slots.staging(version)
        adopt_files(folder, parts.kept, aside)
        install(state, target, version, Origin("folder", str(folder), int(time.time()), "", digests))
    facts = {"name": target, "version": version, "folder": str(slots.path(version)), "left_out": list(parts.left_out)}
    if json:
        typer.echo(jsonlib.dumps(facts | {"files_bytes": all_bytes}))
        return
    for file in parts.left_out:
        typer.echo(f"left out: {printable(file)} (no part of a model)")
    typer.echo(f"installed: {target}, version {version}, in {facts['folder']}")
