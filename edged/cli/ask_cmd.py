"""`edged ask`: one question, one streamed answer."""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from edged.cli import exits
from edged.cli.options import Endpoint, Json
from edged.cli.printable import printable
from edged.client import Client
from edged.client.replies import Answer
from edged.client.requests import ChatOptions, Message

DEFAULT_WITH_PICTURES = "nano-vision"


def ask(
    question: Annotated[
        list[str] | None, typer.Argument(help="The question; left out or `-`: read from standard input.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Name of the model to ask.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message that goes before the question.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer, in tokens.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=5, help="0 always takes the likeliest token.")] = 0.0,
    seed: Annotated[int | None, typer.Option(min=0, help="Makes a temperature above 0 repeatable.")] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="A picture to ask about (PNG, JPEG, WebP); may be given several times.", exists=True, dir_okay=False
        ),
    ] = None,
    detail: Annotated[
        Literal["low", "high", "auto"], typer.Option(help="How closely pictures are looked at; low is fastest.")
    ] = "auto",
    session: Annotated[str | None, typer.Option(help="Keep what was read under this name, for a next turn.")] = None,
    timeout: Annotated[
        float | None, typer.Option(min=0.001, max=86_400, help="Seconds the whole answer may take.")
    ] = None,
    endpoint: Endpoint = None,
    json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell timings on stderr.")] = False,
) -> None:
    """Ask one question and print the answer as it comes.

    If no daemon runs, a private one is started for this question, with the nano model, the nano-vision model for
    pictures, or the one named.
    """
    text = _question(question)
    turns: list[Message] = [{"role": "system", "content": system}] if system else []
    pictures = [path.read_bytes() for path in image or ()]
    parts = [{"type": "image", "frame": frame, "detail": detail} for frame in range(len(pictures))]
    turns.append({"role": "user", "content": [*parts, {"type": "text", "text": text}] if parts else text})
    options: ChatOptions = {"temperature": temperature}
    for name, value in {"max_tokens": max_tokens, "seed": seed, "session": session}.items():
        if value is not None:
            options[name] = value  # type: ignore[literal-required]  # the names are those of ChatOptions
    if timeout is not None:
        options["deadline_ms"] = max(1, round(timeout * 1000))
    _ask(turns, pictures, options, model, endpoint, json=json, verbose=verbose)


def _ask(
    turns: list[Message],
    pictures: list[bytes],
    options: ChatOptions,
    model: str | None,
    endpoint: str | None,
    *,
    json: bool,
    verbose: bool,
) -> None:
    from edged.cli.private_daemon import daemon_or_private
    from edged.cli.waiting import Waiting
    from edged.client import Delta

    default = DEFAULT_WITH_PICTURES if pictures else "nano"
    with (
        daemon_or_private(endpoint, model, default) as (found, private),
        Client(found) as client,
        Waiting() as waiting,
    ):
        waiting.for_model(client)
        wanted = model or (_sees(client) if pictures else None)
        if wanted is not None and not private:
            options["model"] = wanted
        with client.chat(turns, stream=True, attachments=pictures, **options) as stream:
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


def _sees(client: Client) -> str | None:
    """The first model known to take pictures, else the embedded one; None: the daemon says that there is none."""
    models = client.models()
    known = [model.name for model in models if "image" in model.raw.get("takes", ())]
    embedded = [model.name for model in models if model.name == DEFAULT_WITH_PICTURES]
    return next(iter(known + embedded), None)


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
    if answer.accepted.image_tokens:
        parts[-1] += f", {answer.accepted.image_tokens} of them pictures"
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
