"""The memory sum of an engine in parts that add up, for a bar and a list. Arithmetic only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the memory: `mark` is its character in a bar without colours."""

    name: str
    count_bytes: int
    mark: str
    colour: str


def memory_parts(engine: Mapping[str, Any]) -> list[Part]:
    """Weights, KV in use, idle and free, other models' promises, and what is left to the rest of the box.

    [] before the engine has said.

    Everything the engine has or may have: headroom + held = all parts together, unless a setting keeps some of it back
    or there is too little, when the parts show what is planned.
    """
    memory, kv = engine.get("memory") or {}, engine.get("kv") or {}
    terms = memory.get("terms") or {}
    if not terms or not kv:
        return []
    running, idle = int(kv.get("running_bytes", 0)), int(kv.get("idle_bytes", 0))
    ceilings = sum(-int(value) for name, value in terms.items() if name.endswith("ceiling"))
    parts = [
        Part("weights", -int(terms.get("weights_mapped", 0)) - int(terms.get("weights_heap", 0)), "W", "blue"),
        Part("activations", -int(terms.get("activations", 0)), "A", "cyan"),
        Part("promised to other models", -int(terms.get("other_models", 0)), "o", "white"),
        Part("KV running", running, "#", "red"),
        Part("KV idle", idle, "=", "yellow"),
        Part("KV free", max(0, int(memory.get("kv_bytes", 0)) - running - idle), ".", "green"),
        Part("kept back by settings", ceilings, "-", "magenta"),
        Part("reserve for the box", -int(terms.get("reserve", 0)), "r", "bright_black"),
    ]
    return [part for part in parts if part.count_bytes > 0 or part.name.startswith("KV")]


def bar_widths(counts: list[int], width: int) -> list[int]:
    """Characters for each part of a bar of `width`: what is there gets at least one, and all add up to `width`."""
    total = sum(counts)
    if total <= 0 or width < len(counts):
        return [0] * len(counts)
    spare = width - sum(count > 0 for count in counts)
    widths = [1 + count * spare // total if count > 0 else 0 for count in counts]
    widths[counts.index(max(counts))] += width - sum(widths)
    return widths
