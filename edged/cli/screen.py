"""`edged status` and `edged top` for people: rich renderables from what the daemon says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edged.cli.memory_view import Part, bar_widths, memory_parts
from edged.cli.printable import human_bytes, human_seconds, printable
from edged.client import Model, Status

BAR_WIDTH = 60
STATE_STYLE = {"ready": "green", "loading": "yellow", "lost": "red", "failed": "red"}


def status_view(status: Status, endpoint: str) -> RenderableType:
    """Everything on one page."""
    front = _map(status.raw, "front")
    head = Text(f"edged {status.version} at {endpoint}, up {human_seconds(status.uptime_s)}", "bold")
    if status.draining:
        head.append(" (draining)", "yellow")
    facts = _facts(
        {
            "front": f"{human_bytes(front.get('rss_bytes') or 0)} resident, {front.get('connections', 0)} connections, "
            f"{front.get('live_requests', 0)} requests live",
            "requests": _counts(_map(front, "counts")),
        }
    )
    return Group(head, facts, *(_model_view(model) for model in status.models))


def _model_view(model: Model) -> RenderableType:
    engine = _map(model.raw, "engine")
    kv = _map(engine, "kv")
    state = Text(model.state, STATE_STYLE.get(model.state, ""))
    if model.reason:
        state.append(f": {printable(model.reason)}", "")
    facts: dict[str, str | Text] = {"state": state}
    if model.provider:
        facts["provider"] = f"{model.provider}{_why(model.raw)}"
    if model.context_tokens:
        facts["context"] = f"{model.context_tokens} tokens, KV {human_bytes(model.kv_bytes_per_token or 0)} a token"
    if engine:
        facts["queue"] = f"{engine.get('running', 0)} running, {engine.get('waiting', 0)} waiting"
        facts["pace"] = (
            f"{engine.get('decode_tps', 0):g} tokens/s a stream, prompts {engine.get('prefill_tps', 0):g} tokens/s"
        )
        facts["so far"] = (
            f"{engine.get('finished', 0)} answers, {engine.get('completion_tokens', 0)} tokens; "
            f"{engine.get('prompt_tokens', 0)} prompt tokens, {engine.get('cached_tokens', 0)} of them kept from before"
        )
    if model.raw.get("restarts"):
        facts["restarts"] = f"{model.raw['restarts']}, last end: {model.raw.get('last_end')}"
    parts: list[RenderableType] = [Text(f"\n{model.name}", "bold"), _facts(facts)]
    memory = memory_parts(engine)
    if memory:
        pressure = _map(engine, "memory").get("pressure", "none")
        parts += [_memory_view(memory), Text(f"  the longest request now: {kv.get('most_tokens', 0)} tokens")]
        if pressure != "none":
            parts.append(Text(f"  memory pressure: {pressure}", "red"))
    return Group(*parts)


def _memory_view(memory: list[Part]) -> RenderableType:
    widths = bar_widths([part.count_bytes for part in memory], BAR_WIDTH)
    bar = Text("  [")
    for part, width in zip(memory, widths, strict=True):
        bar.append(part.mark * width, part.colour)
    bar.append("]")
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column(justify="right")
    for part in memory:
        name = Text(f"  {part.mark} ", part.colour)
        name.append(part.name, "default")
        table.add_row(name, human_bytes(part.count_bytes))
    total = sum(part.count_bytes for part in memory)
    table.add_row(Text("    together", "bold"), Text(human_bytes(total), "bold"))
    return Group(Text("  memory", "bold"), bar, table)


def _facts(facts: Mapping[str, str | Text]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bright_black")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(f"  {name}", value if isinstance(value, Text) else Text(value))
    return table


def _counts(counts: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{name} {value}" for name, value in sorted(counts.items()))
    return shown or "none yet"


def _why(raw: Mapping[str, Any]) -> str:
    """Why this provider, when the daemon says so."""
    why = raw.get("provider_reason")
    return f" ({printable(str(why))})" if why else ""


def _map(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    return value if isinstance(value, dict) else {}
