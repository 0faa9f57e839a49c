"""How much KV memory this engine may have, read again while it runs. Owns the readings; hardware.budget has the sum."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from edged.errors import ModelError
from edged.hardware.budget import MemoryBudget, Reserve, Weights, kv_budget, weights_before_load
from edged.hardware.memory import process_rss, read_memory
from edged.hardware.pressure import PressureLevel, pressure_level, read_pressure
from edged.store.manifest import ModelManifest

REFRESH_S = 1.0
LEAST_CONTEXT_TOKENS = 256  # a model that cannot even have this much KV is not worth loading
MIB = 2**20


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """The owner's settings; `kv_ceiling_bytes` 0 means none."""

    kv_ceiling_bytes: int
    reserve_bytes: int
    reserve_fraction: float


class EngineMemory:
    """The budget of one engine process. Before `loaded` it only answers `check_room`."""

    def __init__(self, policy: MemoryPolicy) -> None:
        self._policy = policy
        self._reserve = Reserve(policy.reserve_bytes, policy.reserve_fraction)
        self._weights = Weights(0)
        self._activation_bytes = 0
        self._is_loaded = False
        self._read_s = 0.0
        self._budget: MemoryBudget | None = None
        self.pressure = PressureLevel.NONE

    def check_room(self, manifest: ModelManifest) -> None:
        """Raises ModelError with the numbers when weights and the smallest context do not fit now."""
        self._weights = weights_before_load(manifest.weights_bytes, manifest.packed_bytes)
        least_bytes = manifest.kv_bytes_per_token * LEAST_CONTEXT_TOKENS
        budget = self._read()
        short_bytes = budget.missing_bytes or least_bytes - budget.kv_bytes
        if short_bytes > 0:
            terms = ", ".join(f"{term.name} {term.signed_bytes / MIB:+.0f} MiB" for term in budget.terms)
            raise ModelError(
                manifest.folder,
                "",
                f"does not fit into memory: {short_bytes / MIB:.0f} MiB are missing for its weights and "
                f"{LEAST_CONTEXT_TOKENS} tokens of context ({terms}); free memory, lower the reserve, or use a "
                "smaller model",
            )

    def loaded(self, activation_bytes: int) -> None:
        """The weights are in memory: what the load really took on the heap is booked from now on.

        `activation_bytes` is what reading one slice takes beside that, as measured.
        """
        held_bytes = anonymous_bytes()
        if held_bytes:
            self._weights = Weights(mapped_bytes=self._weights.mapped_bytes, heap_bytes=held_bytes)
        self._activation_bytes = activation_bytes
        self._is_loaded = True
        self._read_s = 0.0

    @property
    def weights(self) -> Weights:
        return self._weights

    def budget_bytes(self) -> int:
        """KV memory there may be in all, in use and idle together."""
        return self.budget().kv_bytes

    def budget(self) -> MemoryBudget:
        """The budget with its terms, at most REFRESH_S old."""
        if self._budget is None or time.monotonic() - self._read_s > REFRESH_S:
            self._budget = self._read()
            self._read_s = time.monotonic()
        return self._budget

    def _read(self) -> MemoryBudget:
        reading = read_memory()
        stall = read_pressure().worst
        self.pressure = pressure_level(stall, reading.headroom_bytes, was=self.pressure)
        return kv_budget(
            reading,
            weights=self._weights,
            held_bytes=anonymous_bytes() if self._is_loaded else 0,
            activation_bytes=self._activation_bytes,
            reserve=self._reserve,
            kv_ceiling_bytes=self._policy.kv_ceiling_bytes or None,
        )

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


def anonymous_bytes() -> int:
    """This process's memory that the kernel cannot drop."""
    rss = process_rss()
    return rss.anon_bytes or 0 if rss else 0
