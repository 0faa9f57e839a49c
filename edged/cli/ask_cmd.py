"""`edged ask`: one question, one streamed answer."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from edged.cli import exits
from edged.cli.options import Endpoint, Json
from edged.cli.printable import printable
from edged.client.replies import Answer
from edged.client.requests import ChatOptions, Message


def ask(
    question: Annotated[
        list[str] | None, typer.Argument(help="The question; left out or `-`: read from standard input.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Name of the model to ask.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message that goes before the question.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=5, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes a temperature above 0 repeatable.")] = None,
    session: Annotated[str | None, typer.Option(help="Keep what was read under this name, for a next turn.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, max=86_400, help="Seconds the whole answer may take.")
    ] = None,
    endpoint: Endpoint = None,
    json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell timings on stderr.")] = False,
) -> None:
    """Ask one question and print the answer as it comes.

    If no daemon runs, a private one is started for this question, with the nano model or the one named.
    """
    text = _question(question)
    turns: list[Message] = [{"role": "system", "content": system}] if system else []
    turns.append({"role": "user", "content": text})
    options: ChatOptions = {"temperature": temperature}
    for name, value in {"max_tokens": max_tokens, "seed": seed, "session": session}.items():
        if value is not None:
            options[name] = value  # type: ignore[literal-required]  # the names are those of ChatOptions
    if timeout is not None:
        options["deadline_ms"] = max(1, round(timeout * 1000))
    _ask(turns, options, model, endpoint, json=json, verbose=verbose)


def _ask(
    turns: list[Message], options: ChatOptions, model: str | None, endpoint: str | None, *, json: bool, verbose: bool
) -> None:
    from edged.cli.private_daemon import daemon_or_private
    from edged.cli.waiting import Waiting
    from edged.client import Client, Delta

    with daemon_or_private(endpoint, model) as (found, private), Client(found) as client, Waiting() as waiting:
        if model is not None and not private:
            options["model"] = model
        waiting.for_model(client)
        with client.chat(turns, stream=True, **options) as stream:
            for event in stream.events():
                waiting.event(event)
                if isinstance(event, Delta) and not json:
                    typer.echo(printable(event.text) if sys.stdout.isatty() else event.text, nl=False)
                    sys.stdout.flush()
            answer = stream.result()
    if json:
        typer.echo(jsonlib.dumps(asdict(answer), ensure_ascii=False))
    else:
        typer.echo()
    if verbose or (sys.stderr.isatty() and answer.finish_reason != "stop"):
        typer.echo(summary(answer), err=True)
    if answer.finish_reason == "deadline":
        raise typer.Exit(exits.ERROR)


def summary(answer: Answer) -> str:
    """One line on how long it took and why it ended."""
    usage, timings = answer.usage, answer.timings
    ended = {
        "stop": "complete",
        "length": "cut off at its token limit",
        "deadline": "cut off by the time limit",
        "cancelled": "cancelled",
    }.get(answer.finish_reason, answer.finish_reason)
    parts = [f"{usage.completion_tokens} tokens, {ended}", f"prompt {usage.prompt_tokens} tokens"]
    if usage.cached_tokens:
        parts[-1] += f" ({usage.cached_tokens} kept from before)"
    if timings.ttft_ms is not None:
        parts.append(f"first token after {timings.ttft_ms:.1f} ms")
    if timings.decode_tps is not None:
        parts.append(f"{timings.decode_tps:.0f} tokens/s")
    if answer.accepted.kv_bytes:
        parts.append(f"KV memory {answer.accepted.kv_bytes / 2**20:.2f} MiB")
    return "· " + " · ".join(parts)


def _question(words: list[str] | None) -> str:
    if words and words != ["-"]:
        text = " ".join(words)
    elif sys.stdin.isatty() and not words:
        raise typer.BadParameter("give a question, or pipe one in", param_hint="QUESTION")
    else:
        try:
            text = sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError:
            raise typer.BadParameter("standard input is not UTF-8 text", param_hint="QUESTION") from None
    if not text.strip():
        raise typer.BadParameter("the question is empty", param_hint="QUESTION")
    return text.removesuffix("\n")
