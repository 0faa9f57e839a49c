"""`edged serve`: read the flags, then become the daemon."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from edged import children


def serve(
    endpoint: Annotated[
        str | None, typer.Option(help="Where clients reach it, e.g. ipc:///run/edged/edged.sock.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of an installed model, or a model folder's path.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file. Default: /etc/edged/edged.toml.")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="Where models and measurements are kept.")] = None,
    log_level: Annotated[Literal["debug", "info", "warning", "error"] | None, typer.Option()] = None,
    log_format: Annotated[Literal["text", "json"] | None, typer.Option()] = None,
) -> None:
    """Serve until told to stop: SIGTERM drains, a second SIGINT stops at once, SIGHUP re-reads the settings.

    Other settings come from the file and the environment: `edged config show` lists them. Clients that come while the
    model loads are made to wait; `edged status` says how far it is.
    """
    flags = {
        "endpoint": endpoint,
        "model": model,
        "config": config,
        "state_dir": state_dir,
        "log_level": log_level,
        "log_format": log_format,
    }
    arguments = [f"{name}={value}" for name, value in flags.items() if value is not None]
    os.execve(sys.executable, children.command("edged.cli.serve_main", *arguments), children.environment())
