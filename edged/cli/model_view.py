"""One model on the status page: what it runs on and why, who holds its memory, what slows it down."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edged.cli.memory_view import Part, bar_widths, memory_parts
from edged.cli.printable import human_bytes, printable
from edged.client import Model

BAR_WIDTH = 60
MOST_SLOTS = 8
STATE_STYLE = {"ready": "green", "loading": "yellow", "lost": "red", "failed": "red"}


def model_view(model: Model) -> RenderableType:
    """The model's part of the page."""
    engine = sub_map(model.raw, "engine")
    parts: list[RenderableType] = [Text(f"\n{printable(model.name)}", "bold"), facts_table(dict(_facts(model, engine)))]
    memory = memory_parts(engine)
    if memory:
        parts.append(_memory_view(memory))
        if "most_tokens" in sub_map(engine, "kv"):  # a model of words
            longest = sub_map(engine, "kv")["most_tokens"]
            parts += [Text(f"  the longest request now: {longest} tokens"), _slots_view(engine)]
    return Group(*parts)


def _facts(model: Model, engine: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    state = Text(model.state, STATE_STYLE.get(model.state, ""))
    if model.reason:
        state.append(f": {printable(model.reason)}", "default")
    yield "state", state
    if model.raw.get("version"):
        yield "version", printable(str(model.raw["version"]))
    if model.provider:
        yield from _provider(model.provider, sub_map(model.raw, "selection"))
    if model.context_tokens:
        yield "context", f"{model.context_tokens} tokens, KV {human_bytes(model.kv_bytes_per_token or 0)} a token"
    if engine:
        yield from _work(engine)
    if model.raw.get("restarts"):
        yield "restarts", f"{model.raw['restarts']}, last end: {printable(str(model.raw.get('last_end')))}"


def _provider(provider: str, selection: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    """What it runs on; a fall-back is never silent."""
    line = Text(provider)
    if selection.get("fell_back"):
        line.append(f" instead of {printable(str(selection.get('wanted')))}", "red")
    if selection.get("why"):
        line.append(f": {printable(str(selection['why']))}")
    yield "provider", line
    refused = selection.get("passed_over")
    for number, other in enumerate(refused if isinstance(refused, list) else []):
        name = "passed over" if number == 0 else " " * (number + 1)  # a name of its own, and nothing to see
        yield name, printable(f"{other.get('provider')}: {other.get('reason')}")


def _work(engine: Mapping[str, Any]) -> Iterator[tuple[str, str | Text]]:
    queue = Text(f"{engine.get('running', 0)} running, {engine.get('waiting', 0)} waiting")
    if engine.get("admitting") is False:
        queue.append(", admits nobody now: memory is short", "red")
    yield "queue", queue
    if "row_ms" in engine:  # a plain model
        yield "pace", f"{engine['row_ms']:.2f} ms an item, {engine.get('rows_per_run', 0):.1f} items a run"
    else:
        decode, prefill = engine.get("decode_tps", 0), engine.get("prefill_tps", 0)
        yield "pace", f"{decode:.0f} tokens/s a stream, prompts {prefill:.0f} tokens/s"
    heat = sub_map(engine, "heat")
    if heat.get("share", 1.0) < 1.0:
        yield "heat", Text(f"slowed to {heat['share']:.0%}: {printable(str(heat.get('reason')))}", "red")
    if "row_ms" in engine:
        yield "so far", f"{engine.get('finished', 0)} answers, {engine.get('refused', 0)} refused"
    else:
        yield (
            "so far",
            f"{engine.get('finished', 0)} answers, {engine.get('completion_tokens', 0)} tokens; "
            f"{engine.get('prompt_tokens', 0)} prompt tokens, "
            f"{engine.get('cached_tokens', 0)} of them kept from before",
        )
    pressure = sub_map(engine, "memory").get("pressure", "none")
    if pressure != "none":
        yield "pressure", Text(f"memory pressure is {pressure}", "red")


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


def _slots_view(engine: Mapping[str, Any]) -> RenderableType:
    """Who holds KV memory, the largest first."""
    listed = engine.get("slots")
    slots = sorted(
        (slot for slot in listed if isinstance(slot, dict)) if isinstance(listed, list) else [],
        key=lambda slot: -int(slot.get("kv_bytes", 0)),
    )
    if not slots:
        return Group()
    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column()
    for slot in slots[:MOST_SLOTS]:
        table.add_row(
            Text(f"    {printable(str(slot.get('owner')))}"),
            f"{slot.get('tokens', 0)} tokens",
            human_bytes(int(slot.get("kv_bytes", 0))),
        )
    if len(slots) > MOST_SLOTS:
        table.add_row(f"    and {len(slots) - MOST_SLOTS} more", "", "")
    return Group(Text("  KV memory by holder", "bold"), table)


def facts_table(facts: Mapping[str, str | Text]) -> Table:
    """Names beside values."""
    table = Table.grid(padding=(0, 1))
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(f"  {name}"), value if isinstance(value, Text) else Text(value))
    return table


def sub_map(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A map inside a map; an empty one when there is none."""
    value = raw.get(name)
    return value if isinstance(value, dict) else {}
