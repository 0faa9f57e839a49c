"""The `edged` command: registers the groups; each command lives in a file of its own and imports what it needs late."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edged import __version__
from edged.cli.install_cmd import install, uninstall
from edged.errors import EdgedError

app = typer.Typer(
    name="edged",
    help="A private model server for one edge box.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edged {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """A private model server for one edge box."""


app.command()(install)
app.command()(uninstall)


def main() -> None:
    """Console entry: an error of ours is one line for the user, never a stack trace."""
    try:
        app()
    except EdgedError as error:
        typer.echo(f"edged: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
