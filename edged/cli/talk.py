"""A conversation: its turns, its session, and what happens to both when an answer is stopped or fails."""

from __future__ import annotations

import contextlib
import sys

import typer

from edged.cli.printable import printable
from edged.cli.waiting import Waiting
from edged.client import Client, ClientError, Delta, Message
from edged.client.requests import ChatOptions
from edged.errors import RequestError


class Talk:
    """Owns the turns. `options` hold the session under which the daemon keeps what it has read."""

    def __init__(self, client: Client, options: ChatOptions, system: str | None) -> None:
        self._client, self._options, self._system = client, options, system
        self._turns: list[Message] = self._beginning()

    def wait_for_model(self) -> None:
        """Show the model's load, if there is a terminal to show it on."""
        with Waiting() as waiting:
            waiting.for_model(self._client)

    def say(self, text: str) -> None:
        """One turn: prints the answer as it comes. Ctrl-C keeps what was said so far; an error takes the turn back."""
        self._turns.append({"role": "user", "content": text})
        said: list[str] = []
        try:
            self._answer(said)
        except KeyboardInterrupt:
            typer.echo("\n(stopped)", err=True)
        except (RequestError, ClientError) as error:
            typer.echo(f"edged: {error}", err=True)
            said.clear()
        if said:
            self._turns.append({"role": "assistant", "content": "".join(said)})
        else:
            self._turns.pop()

    def reset(self) -> None:
        """Forget the conversation, here and in the daemon."""
        self._turns = self._beginning()
        with contextlib.suppress(RequestError, ClientError):  # nothing was kept, or it ends with this connection
            self._client.session_close(self._options["session"])

    def _answer(self, said: list[str]) -> None:
        with Waiting() as waiting, self._client.chat(self._turns, stream=True, **self._options) as stream:
            for event in stream.events():
                waiting.event(event)
                if isinstance(event, Delta):
                    said.append(event.text)
                    typer.echo(printable(event.text) if sys.stdout.isatty() else event.text, nl=False)
                    sys.stdout.flush()
        typer.echo()
        if stream.answer is not None and stream.answer.finish_reason == "length":
            typer.echo("(cut off at its token limit)", err=True)

    def _beginning(self) -> list[Message]:
        return [{"role": "system", "content": self._system}] if self._system else []
