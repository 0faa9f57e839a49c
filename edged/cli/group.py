"""The command group: imports a command when it is named, and turns every error of ours into one line and a status."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from edged.cli import exits
from edged.errors import EdgedError


class LazyGroup(TyperGroup):
    """`table` maps a command to `module:name`, a function or a Typer app; `edged ping` imports ping alone."""

    table: ClassVar[dict[str, str]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands in the order of the table."""
        return list(self.table)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, None if there is none."""
        place = self.table.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        return _command(cmd_name, getattr(importlib.import_module(module), name))

    def invoke(self, ctx: Any) -> Any:
        """Run; errors of ours end here, as JSON where JSON was asked for."""
        as_json = "--json" in ctx.args
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except EdgedError as error:
            if as_json:
                typer.echo(json.dumps(exits.error_map(error)))
            else:
                typer.echo(f"edged: {error}", err=True)
            raise typer.Exit(exits.exit_status(error)) from None
        except BrokenPipeError:  # the reader has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(exits.BROKEN_PIPE) from None
        except KeyboardInterrupt:
            raise typer.Exit(exits.INTERRUPTED) from None


def _command(name: str, found: Callable[..., Any] | typer.Typer) -> Any:
    if not isinstance(found, typer.Typer):
        function = found
        found = typer.Typer(add_completion=False, rich_markup_mode=None)
        found.command(name)(function)
    command = typer.main.get_command(found)
    command.name = name
    return command
