"""Which release a device should have now: a decision over plain facts, with the reason for each that it passes over."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edged.store.journal import Entry
from edged.update.bundle import Bundle
from edged.update.window import Window

STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Box:
    """The device as the updater is told of it. None: not known, and then not held against an update.

    `memory_bytes`: what the machine or its cgroup has in all. `providers`: execution providers that work here.
    """

    device_id: str
    groups: frozenset[str]
    edged: str
    architecture: str
    providers: frozenset[str] | None
    memory_bytes: int | None
    on_mains: bool | None = None
    is_cool: bool | None = None
    is_idle: bool | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the owner of the box allows. `hold`: the reason why nothing may change now, or empty."""

    hold: str = ""
    window: Window | None = None
    only_on_mains: bool = False
    only_when_cool: bool = False
    only_when_idle: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """What the store holds of one model."""

    version: str | None
    release: int
    refused: Mapping[str, Entry]


class Why(enum.Enum):
    """Why a release is not taken."""

    NOT_NEWER = "not newer than what is active"
    REFUSED = "failed on this device before"
    NOT_YET = "not before its time"
    NOT_CHOSEN = "not in the share of devices that have it yet"
    OTHER_GROUP = "for other groups"
    UNFIT = "does not fit this device"


@dataclass(frozen=True, slots=True)
class Passed:
    """A release that this device does not get now."""

    release: int
    version: str
    why: Why
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """`bundle` to take, or None; `passed` newest first; `waits`: why even `bundle` is not taken now, or empty."""

    bundle: Bundle | None
    passed: tuple[Passed, ...]
    waits: str = ""


def choose(bundles: Iterable[Bundle], box: Box, installed: Installed, rules: Rules, now_s: float) -> Choice:
    """The newest release that is for this device."""
    passed: list[Passed] = []
    for bundle in sorted(bundles, key=lambda one: one.release, reverse=True):
        verdict = _judge(bundle, box, installed, now_s)
        if verdict is None:
            return Choice(bundle, tuple(passed), waits(box, rules, now_s))
        passed.append(Passed(bundle.release, bundle.version, *verdict))
        if verdict[0] is Why.NOT_NEWER:
            break
    return Choice(None, tuple(passed))


def waits(box: Box, rules: Rules, now_s: float) -> str:
    """Why nothing may change at this moment; empty when it may."""
    if rules.hold:
        return f"held: {rules.hold}"
    if rules.window is not None and not rules.window.is_open(now_s):
        return f"outside the maintenance window {rules.window}"
    if rules.only_on_mains and box.on_mains is False:
        return "on battery"
    if rules.only_when_cool and box.is_cool is False:
        return "too warm"
    if rules.only_when_idle and box.is_idle is False:
        return "busy"
    return ""


def place(device_id: str, model: str, release: int) -> float:
    """Where a device stands in the queue for a release: 0 ≤ place < 100, the same each time, evenly spread.

    A new release deals the places anew, so that it is not always the same devices that go first.
    """
    seed = f"edged-rollout/1\0{device_id}\0{model}\0{release}".encode()
    return int.from_bytes(hashlib.sha256(seed).digest()[:8]) * STEPS // 2**64 * 100 / STEPS


def _judge(bundle: Bundle, box: Box, installed: Installed, now_s: float) -> tuple[Why, str] | None:
    if bundle.release <= installed.release or bundle.version == installed.version:
        return Why.NOT_NEWER, f"release {installed.release} is active"
    refusal = installed.refused.get(bundle.version)
    if refusal is not None and refusal.release >= bundle.release:
        return Why.REFUSED, refusal.reason
    if unfit := misfit(bundle, box):
        return Why.UNFIT, unfit
    rollout = bundle.rollout
    if now_s < rollout.not_before_s:
        return Why.NOT_YET, f"in {rollout.not_before_s - now_s:.0f} s"
    if rollout.groups and not box.groups & set(rollout.groups):
        return Why.OTHER_GROUP, ", ".join(rollout.groups)
    mine = place(box.device_id, bundle.model, bundle.release)
    if mine >= rollout.percent:
        return Why.NOT_CHOSEN, f"this device is at {mine:.1f} %, the release at {rollout.percent:g} %"
    return None


def misfit(bundle: Bundle, box: Box) -> str:
    """What the device lacks for the bundle; empty when it has all."""
    needs = bundle.needs
    if numbers(box.edged) < numbers(needs.edged):
        return f"needs edged {needs.edged}, this is {box.edged}"
    if needs.architectures and box.architecture not in needs.architectures:
        return f"is for {', '.join(needs.architectures)}, this is {box.architecture}"
    if needs.providers and box.providers is not None and not box.providers & set(needs.providers):
        return f"runs on {', '.join(needs.providers)}; here are {', '.join(sorted(box.providers)) or 'none'}"
    if box.memory_bytes is not None and needs.memory_bytes > box.memory_bytes:
        return f"needs {needs.memory_bytes / 2**20:.0f} MiB of memory, this device has {box.memory_bytes / 2**20:.0f}"
    return ""


def numbers(version: str) -> tuple[int, ...]:
    """`1.10.0.dev3` → (1, 10): the leading numbers, without zeros at the end."""
    found: list[int] = []
    for part in version.split("."):
        if not (part.isascii() and part.isdigit()):
            break
        found.append(int(part))
    while found and not found[-1]:
        found.pop()
    return tuple(found)
