"""Whether a new version proved itself: judgements over measured numbers, each with its reason. Runs nothing itself."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edged.update.bundle import Golden

TOKENS_FOR_SPEED = 8  # an answer shorter than this says nothing about decoding speed


@dataclass(frozen=True, slots=True)
class Limits:
    """What a new version must keep to. `least_speed`: share of the old version's tokens per second on this device.

    `memory_slack`: share by which measured memory may exceed the estimate, after `runtime_bytes` for what any engine
    takes before it has a model. The watch ends well after `watch_s` seconds
    if at least `watch_requests` were answered, and in any case after `watch_most_s`.
    """

    load_s: float = 600.0
    answer_s: float = 120.0
    least_speed: float = 0.7
    memory_slack: float = 0.05
    runtime_bytes: int = 192 << 20
    watch_s: float = 300.0
    watch_requests: int = 20
    watch_most_s: float = 3600.0
    most_error_share: float = 0.05
    most_crashes: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to a golden prompt, at temperature 0; `decode_tps` in tokens per second."""

    text: str
    tokens: int
    decode_tps: float


@dataclass(frozen=True, slots=True)
class Vitals:
    """Counted since the new version took over. `decode_tps` None: nothing was asked yet."""

    seconds: float
    requests: int
    errors: int
    crashes: int
    decode_tps: float | None


class Plan(enum.Enum):
    """How the new version gets its memory for the test."""

    BESIDE = "both models in memory, the new one is tested while the old one serves"
    INSTEAD = "the old model leaves first and is brought back if the new one fails"


def plan(need_bytes: int, free_bytes: int, running: bool) -> Plan:
    """`free_bytes`: what the ledger would give a second model now. `running`: an old model is in memory."""
    return Plan.BESIDE if need_bytes <= free_bytes or not running else Plan.INSTEAD


def judge_answer(golden: Golden, text: str) -> str:
    """Empty when the answer is right; else what is wrong."""
    wanted = golden.answer[: round(len(golden.answer) * golden.same_share)]
    if golden.same_share == 1 and text == golden.answer:
        return ""
    if golden.same_share < 1 and text.startswith(wanted):
        return ""
    same = next((at for at, (one, other) in enumerate(zip(text, wanted, strict=False)) if one != other), None)
    at = min(len(text), len(wanted)) if same is None else same
    return f"a golden prompt is answered otherwise from character {at} on ({len(wanted)} must agree)"


def judge_speed(new: Sequence[Answer], old: Sequence[Answer], limits: Limits) -> str:
    """Medians of answers long enough to tell; empty when fast enough or when there is nothing to compare with."""
    fast = [answer.decode_tps for answer in new if answer.tokens >= TOKENS_FOR_SPEED]
    before = [answer.decode_tps for answer in old if answer.tokens >= TOKENS_FOR_SPEED]
    if not fast or not before:
        return ""
    now_tps, old_tps = statistics.median(fast), statistics.median(before)
    if now_tps >= limits.least_speed * old_tps:
        return ""
    return f"decodes {now_tps:.1f} tokens/s, the old version {old_tps:.1f}; {limits.least_speed:.0%} of that is wanted"


def judge_memory(measured_bytes: int | None, estimate_bytes: int, limits: Limits) -> str:
    """Empty when within the estimate that the bundle gave, or when one of the two is not known."""
    most = estimate_bytes * (1 + limits.memory_slack) + limits.runtime_bytes
    if measured_bytes is None or not estimate_bytes or measured_bytes <= most:
        return ""
    return f"takes {measured_bytes / 2**20:.0f} MiB of memory, {estimate_bytes / 2**20:.0f} were said"


def judge_watch(vitals: Vitals, old_tps: float | None, limits: Limits) -> str | None:
    """None: go on watching. Empty: it proved itself. Else why it must go back."""
    if vitals.crashes > limits.most_crashes:
        return f"the engine ended {vitals.crashes} time(s) after the change"
    if vitals.errors > max(1.0, vitals.requests * limits.most_error_share):
        return f"{vitals.errors} of {vitals.requests} requests failed after the change"
    is_over = vitals.seconds >= limits.watch_s and vitals.requests >= limits.watch_requests
    if not is_over and vitals.seconds < limits.watch_most_s:
        return None
    slow = old_tps and vitals.decode_tps is not None and vitals.requests >= limits.watch_requests
    if slow and vitals.decode_tps is not None and old_tps and vitals.decode_tps < limits.least_speed * old_tps:
        return f"decodes {vitals.decode_tps:.1f} tokens/s since the change, the old version {old_tps:.1f}"
    return ""
