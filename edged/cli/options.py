"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read, errors included.")]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        "-e",
        help="Where the daemon is. Default: EDGED_ENDPOINT, then the user's socket, then the system's.",
        show_default=False,
    ),
]
