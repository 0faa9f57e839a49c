"""`edged estimate`: the whole memory sum of a model, without loading it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from edged.cli import exits
from edged.cli.printable import human_bytes

_WORDS = {
    "headroom": "free now",
    "held": "held already",
    "weights_mapped": "weights, mapped from the file",
    "weights_heap": "weights, packed on the heap",
    "activations": "work space of a prompt slice",
    "reserve": "reserve for the rest of the box",
    "kv_ceiling": "ceiling set by the owner",
}


def estimate(
    model: Annotated[str, typer.Argument(help="Installed model name or path of a model folder.")] = "nano",
    context: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Tokens of prompt and answer per client; 0: the model's most.")
    ] = 0,
    clients: Annotated[int, typer.Option(min=1, max=100_000, help="Conversations held at the same time.")] = 1,
    memory: Annotated[
        float, typer.Option(min=0, max=2**20, help="Plan for a box with so many GiB free; 0: this box, now.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether a model fits, and with how much context, without loading it.

    Exit status 0 when it fits, 1 when it does not.
    """
    from edged.config import load
    from edged.hardware.budget import Reserve, kv_budget, weights_before_load
    from edged.hardware.memory import MemoryReading, read_memory
    from edged.hardware.room import Wish, judge
    from edged.store.manifest import read_manifest
    from edged.store.models import find_model

    settings, _ = load()
    found = find_model(model, settings.state_path)
    manifest = read_manifest(found.folder)
    planned_bytes = int(memory * 2**30)
    reading = MemoryReading(planned_bytes, planned_bytes, "asked for") if planned_bytes else read_memory()
    budget = kv_budget(
        reading,
        weights=weights_before_load(manifest.weights_bytes, manifest.packed_bytes),
        reserve=Reserve(settings.memory_reserve_bytes, settings.memory_reserve_fraction),
        kv_ceiling_bytes=settings.kv_memory_bytes or None,
    )
    most = min(manifest.max_tokens, settings.max_context or manifest.max_tokens)
    wish = Wish(context or most, clients)
    verdict = judge(budget, manifest.kv_bytes_per_token, most, wish)
    if as_json:
        terms = {term.name: term.signed_bytes for term in budget.terms}
        report: dict[str, Any] = {"model": found.name, **asdict(wish), "terms": terms, "binding": budget.binding}
        report |= {"kv_bytes_per_token": manifest.kv_bytes_per_token, "max_tokens": most, **asdict(verdict)}
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(found.name, budget, manifest.kv_bytes_per_token, most, wish, verdict)
    raise typer.Exit(exits.OK if verdict.fits else exits.ERROR)


def _show(name: str, budget: Any, per_token: int, most: int, wish: Any, verdict: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{name} · {wish.clients} × {wish.context_tokens} tokens", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for term in budget.terms:
        if term.signed_bytes:
            sign = "−" if term.signed_bytes < 0 else ""
            table.add_row(_WORDS.get(term.name, term.name), sign + human_bytes(abs(term.signed_bytes)))
    table.add_section()
    table.add_row("left for KV cache", human_bytes(verdict.kv_budget_bytes))
    table.add_row(f"wanted ({human_bytes(per_token)} a token)", human_bytes(verdict.kv_needed_bytes))
    console = Console()
    console.print(table)
    if verdict.fits:
        console.print(f"Yes, it fits: up to {verdict.most_clients} such conversations at once.")
    elif wish.context_tokens > most:
        console.print(f"No: this model answers rightly up to {most} tokens only.")
    elif verdict.most_context_tokens:
        console.print(
            f"No: {human_bytes(verdict.missing_bytes)} are missing. "
            f"{wish.clients} × {verdict.most_context_tokens} tokens fit."
        )
    else:
        console.print(f"No: {human_bytes(verdict.missing_bytes)} are missing; not even the weights and one token fit.")
