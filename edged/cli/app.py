"""The `edged` command: which commands there are and where each is; each is imported when it is used."""

from __future__ import annotations

import os
import sys
from typing import Annotated, ClassVar

import typer

from edged import __version__
from edged.cli import exits
from edged.cli.group import LazyGroup


class Commands(LazyGroup):
    """Every command of edged."""

    table: ClassVar[dict[str, str]] = {
        "serve": "edged.cli.serve_cmd:serve",
        "ask": "edged.cli.ask_cmd:ask",
        "chat": "edged.cli.chat_cmd:chat",
        "infer": "edged.cli.infer_cmd:infer",
        "embed": "edged.cli.embed_cmd:embed",
        "watch": "edged.cli.watch_cmd:watch",
        "status": "edged.cli.status_cmd:status",
        "top": "edged.cli.status_cmd:top",
        "ping": "edged.cli.ping_cmd:ping",
        "models": "edged.cli.models_cmd:app",
        "load": "edged.cli.load_cmd:load",
        "unload": "edged.cli.load_cmd:unload",
        "pull": "edged.cli.pull_cmd:pull",
        "import": "edged.cli.import_cmd:import_",
        "verify": "edged.cli.verify_cmd:verify",
        "remove": "edged.cli.remove_cmd:remove",
        "config": "edged.cli.config_cmd:app",
        "probe": "edged.cli.probe_cmd:probe",
        "providers": "edged.cli.providers_cmd:providers",
        "tune": "edged.cli.tune_cmd:tune",
        "estimate": "edged.cli.estimate_cmd:estimate",
        "bench": "edged.cli.bench_cmd:bench",
        "update": "edged.cli.update_cmd:app",
        "keys": "edged.cli.keys_cmd:app",
        "doctor": "edged.cli.doctor_cmd:doctor",
        "metrics": "edged.cli.metrics_cmd:metrics",
        "install": "edged.cli.install_cmd:install",
        "uninstall": "edged.cli.install_cmd:uninstall",
    }


app = typer.Typer(
    name="edged",
    cls=Commands,
    help="A private model server for one edge box.",
    epilog=exits.HELP,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
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
    key: Annotated[
        str | None, typer.Option("--key", metavar="FILE", help="Key for a daemon over TCP. Default: EDGED_KEY_FILE.")
    ] = None,
) -> None:
    """A private model server for one edge box."""
    if key is not None:
        os.environ["EDGED_KEY_FILE"] = key


def main() -> None:
    """Console entry."""
    try:
        app()
    except KeyboardInterrupt:  # while something was still being imported
        sys.exit(exits.INTERRUPTED)


if __name__ == "__main__":
    main()
