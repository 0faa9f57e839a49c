"""Does a model fit, before it is loaded: the whole sum, and how much context is possible. Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

from edged.hardware.budget import MemoryBudget


@dataclass(frozen=True)
class Wish:
    """`clients` conversations of `context_tokens` each (prompt and answer together), all at once."""

    context_tokens: int
    clients: int


@dataclass(frozen=True)
class Verdict:
    """Whether a wish fits. `most_context_tokens` is the most that each of the clients can have, 0 when none can."""

    fits: bool
    kv_needed_bytes: int
    kv_budget_bytes: int
    missing_bytes: int
    most_context_tokens: int
    most_clients: int


def judge(budget: MemoryBudget, kv_bytes_per_token: int, max_tokens: int, wish: Wish) -> Verdict:
    """Compare a wish with the KV budget of a model that can have at most `max_tokens` of context."""
    needed_bytes = wish.context_tokens * wish.clients * kv_bytes_per_token
    missing_bytes = budget.missing_bytes or max(0, needed_bytes - budget.kv_bytes)
    return Verdict(
        fits=missing_bytes == 0 and wish.context_tokens <= max_tokens,
        kv_needed_bytes=needed_bytes,
        kv_budget_bytes=budget.kv_bytes,
        missing_bytes=missing_bytes,
        most_context_tokens=min(max_tokens, budget.kv_bytes // (wish.clients * kv_bytes_per_token)),
        most_clients=budget.kv_bytes // (wish.context_tokens * kv_bytes_per_token),
    )
