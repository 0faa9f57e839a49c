"""How much KV memory this engine may have, read again while it runs. Owns the readings; hardware.budget has the sum."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edged.engine.neighbours import Neighbours, anonymous_bytes
from edged.errors import ModelError
from edged.hardware.budget import (
    LEAST_CONTEXT_TOKENS,
    DevicePool,
    MemoryBudget,
    Reserve,
    Weights,
    kv_budget,
    weights_before_load,
)
from edged.hardware.memory import MemoryReading, process_rss, read_memory
from edged.hardware.nvidia import read_card_memory
from edged.hardware.pressure import PressureLevel, PressureLimits, pressure_level, read_pressure
from edged.protocol.engine import NO_ROOM

REFRESH_S = 1.0
CARD_REFRESH_S = 10.0  # reading a card starts a process
LOAD_PATIENCE_S = 5.0  # for the books, while others book
MIB = 2**20


class Weighed(Protocol):
    """A model before it is loaded: bytes of its files, of packed int4 weights among them, and of KV for a token."""

    @property
    def folder(self) -> Path: ...
    @property
    def weights_bytes(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...
    @property
    def kv_bytes_per_token(self) -> int: ...


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """The owner's settings; `kv_ceiling_bytes` 0 means none."""

    kv_ceiling_bytes: int
    reserve_bytes: int
    reserve_fraction: float


class EngineMemory:
    """The budget of one engine process. Before `loaded` it only answers `check_room`."""

    def __init__(
        self,
        policy: MemoryPolicy,
        neighbours: Neighbours | None = None,
        read_cards: Callable[[], Sequence[DevicePool]] = read_card_memory,
    ) -> None:
        self.neighbours = neighbours or Neighbours()
        self._policy = policy
        self._reserve = Reserve(policy.reserve_bytes, policy.reserve_fraction)
        self._weights = Weights(0)
        self._activation_bytes = 0
        self._is_loaded = False
        self._read_s = 0.0
        self._reading: MemoryReading | None = None
        self._held_bytes = 0
        self._card: DevicePool | None = None
        self._read_cards = read_cards
        self._on_card = False
        self._summed: tuple[Any, MemoryBudget] | None = None  # the last sum, and what went into it
        self.kv_held: Callable[[], int] = lambda: 0
        self.pressure = PressureLevel.NONE

    def shortage(self, manifest: Weighed) -> tuple[int, MemoryBudget]:
        """Bytes missing for weights and the smallest context (0: it fits), and the sum that says so.

        KV that other models hold now may come back: for it requests wait, it is no reason not to load.
        """
        weights = weights_before_load(manifest.weights_bytes, manifest.packed_bytes)
        if self._reading is None:
            self._look()
        budget = self._sum(weights)
        least_bytes = manifest.kv_bytes_per_token * LEAST_CONTEXT_TOKENS
        return budget.missing_bytes or max(0, least_bytes - budget.kv_bytes - self.neighbours.kv_bytes()), budget

    def check_room(self, manifest: Weighed, others: Sequence[Weighed] = ()) -> None:
        """Raises ModelError with the numbers, and which of `others` would fit, when this model does not fit now.

        When it fits, its memory is promised before another engine can count on it.
        """
        with self.neighbours.booking(LOAD_PATIENCE_S) as had:
            if not had:
                raise ModelError(manifest.folder, "", "the memory books stay locked; trying again")
            short_bytes, budget = self.shortage(manifest)
            self._weights = weights_before_load(manifest.weights_bytes, manifest.packed_bytes)
            if short_bytes <= 0:
                self.neighbours.fixed_bytes = self._weights.total_bytes
                self.neighbours.promise(min(budget.kv_bytes, manifest.kv_bytes_per_token * LEAST_CONTEXT_TOKENS))
                return
        terms = ", ".join(f"{term.name} {term.signed_bytes / MIB:+.0f} MiB" for term in budget.terms)
        smaller = [other.folder.name for other in others if not self.shortage(other)[0]]
        context = f" and {LEAST_CONTEXT_TOKENS} tokens of context" if manifest.kv_bytes_per_token else ""
        advice = f"use {' or '.join(smaller)}, which would fit" if smaller else "use a smaller model"
        raise ModelError(
            manifest.folder,
            "",
            f"{NO_ROOM}: {short_bytes / MIB:.0f} MiB are missing for its weights"
            f"{context} ({terms}); free memory, lower the reserve, or {advice}",
        )

    def loaded(self, activation_bytes: int, *, on_card: bool) -> None:
        """The weights are in memory: what the load really took on the heap is booked from now on.

        `activation_bytes` is what reading one slice takes beside that, as measured. `on_card`: weights and KV are in
        the memory of a card, whose free memory already lacks the weights.
        """
        self._on_card = on_card
        if on_card:
            self._weights = Weights(0)
        elif held_bytes := anonymous_bytes():
            self._weights = Weights(mapped_bytes=self._weights.mapped_bytes, heap_bytes=held_bytes)
        self._activation_bytes = activation_bytes
        self._is_loaded = True
        self._look()
        self.neighbours.on_card, self.neighbours.unified = on_card, self._card is not None and self._card.unified
        self.neighbours.fixed_bytes = self._weights.total_bytes + activation_bytes
        self.neighbours.promise(0)
        self._look()

    def budget_bytes(self) -> int:
        """KV memory there may be in all, in use and idle together."""
        return self.budget().kv_bytes

    def budget(self) -> MemoryBudget:
        """The budget with its terms: readings at most REFRESH_S (on a card CARD_REFRESH_S) old, and what the other
        engines have promised at this moment."""
        age_s = time.monotonic() - self._read_s
        if self._reading is None or age_s > (CARD_REFRESH_S if self._on_card else REFRESH_S):
            self._look()
        return self._sum(self._weights)

    def _look(self) -> None:
        """Read the free memory, and at the same time what we and the others have of it."""
        reading = self._reading = read_memory()
        self.neighbours.look()
        limits = PressureLimits.within(self._reserve.of(reading.usable_total_bytes))
        self.pressure = pressure_level(read_pressure().worst, reading.headroom_bytes, limits, was=self.pressure)
        card = self._card = next(iter(self._read_cards()), None) if self._on_card else None
        in_card = card is not None and not card.unified
        self._held_bytes = self.kv_held() if in_card else anonymous_bytes() if self._is_loaded else 0
        self._read_s = time.monotonic()

    def _sum(self, weights: Weights) -> MemoryBudget:
        assert self._reading is not None
        ceiling_bytes = self._policy.kv_ceiling_bytes
        others_bytes = self.neighbours.untouched_bytes()
        free_ceiling_bytes = max(0, ceiling_bytes - self.neighbours.kv_bytes()) if ceiling_bytes else None
        held_bytes, activation_bytes = self._held_bytes, self._activation_bytes
        terms = (self._reading, weights, held_bytes, activation_bytes, others_bytes, free_ceiling_bytes, self._card)
        if self._summed is None or self._summed[0] != terms:  # asked for each request, and seldom another one
            budget = kv_budget(
                self._reading,
                weights=weights,
                held_bytes=held_bytes,
                activation_bytes=activation_bytes,
                others_bytes=others_bytes,
                reserve=self._reserve,
                kv_ceiling_bytes=free_ceiling_bytes,
                device=self._card,
            )
            self._summed = terms, budget
        return self._summed[1]

    def to_map(self) -> dict[str, Any]:
        """The sum as status shows it."""
        budget = self.budget()
        rss = process_rss()
        return {
            "binding": budget.binding,
            "pool": budget.pool,
            "terms": {term.name: term.signed_bytes for term in budget.terms},
            "kv_bytes": budget.kv_bytes,
            "rss_bytes": rss.rss_bytes if rss else None,
            "pressure": self.pressure.name.lower(),
        }
