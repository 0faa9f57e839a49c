"""`edged chat`: a conversation at the terminal."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edged.cli.options import Endpoint
from edged.client.requests import ChatOptions

if TYPE_CHECKING:
    from edged.cli.talk import Talk

HELP = "/reset forgets the conversation, /quit or Ctrl-D leaves, Ctrl-C stops an answer."


def chat(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Name of the model to talk to.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message that goes before everything.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=5, help="0 always takes the likeliest token.")] = 0.0,
    endpoint: Endpoint = None,
) -> None:
    """Talk with the model, turn by turn; what was read is kept, so that each turn reads only what is new.

    /reset forgets the conversation, /quit or Ctrl-D leaves, Ctrl-C stops an answer and not the program.
    """
    from edged.cli.private_daemon import daemon_or_private
    from edged.cli.talk import Talk
    from edged.client import Client

    options: ChatOptions = {"temperature": temperature, "session": f"chat-{secrets.token_hex(8)}"}
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    with daemon_or_private(endpoint, model) as (found, private), Client(found) as client:
        if model is not None and not private:
            options["model"] = model
        talk = Talk(client, options, system)
        talk.wait_for_model()
        if sys.stdin.isatty():
            import readline  # noqa: F401  # gives input() its line editing and history

            typer.echo(HELP, err=True)
        _loop(talk)


def _loop(talk: Talk) -> None:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            break
        except KeyboardInterrupt:
            typer.echo(f"\n{HELP}", err=True)
            continue
        except UnicodeDecodeError:
            typer.echo("edged: that line is not UTF-8 text", err=True)
            continue
        if line == "/quit":
            break
        if line == "/reset":
            talk.reset()
        elif line.startswith("/") and " " not in line:
            typer.echo(f"edged: {line}: no such command. {HELP}", err=True)
        elif line:
            talk.say(line)
    talk.reset()
