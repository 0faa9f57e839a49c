"""Which variant of a public model suits this box, and why: by provider and memory. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edged.errors import OwnerError
from edged.hardware.budget import Reserve, weights_before_load
from edged.hardware.memory import MemoryReading
from edged.store.catalog import CatalogModel, Variant

AUTO = "auto"
LONGROPE_TOKENS = 4096
SHORT_TOKENS = 2048
"""A model that has no room for even so short a conversation is of no use."""

BEST_FIRST = ("cuda", "tensorrt-rtx", "qnn", "openvino-npu", "openvino-gpu", "webgpu", "cpu", "openvino-cpu")
HOST = frozenset({"cpu", "openvino-cpu"})
"""Providers whose weights and KV cache lie in the machine's own memory."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What a variant takes in memory, and what there is. `most_tokens` is the context that fits into the whole box."""

    weights_bytes: int
    kv_bytes: int
    reserve_bytes: int
    tokens: int
    usable_bytes: int
    free_bytes: int
    checked: bool

    @property
    def need_bytes(self) -> int:
        return self.weights_bytes + self.kv_bytes + self.reserve_bytes

    @property
    def fits(self) -> bool:
        return not self.checked or self.need_bytes <= self.usable_bytes

    @property
    def fits_now(self) -> bool:
        return not self.checked or self.need_bytes <= self.free_bytes


@dataclass(frozen=True, slots=True)
class Pick:
    """The choice. `passed_over` holds (variant, reason)."""

    variant: Variant
    provider: str
    why: str
    fit: Fit
    passed_over: tuple[tuple[str, str], ...]


def pick(
    model: CatalogModel,
    providers: Mapping[str, str],
    reading: MemoryReading,
    reserve: Reserve,
    *,
    provider: str = AUTO,
    variant: str = "",
) -> Pick:
    """`providers`: key → "" when it works here, else why not. `provider` and `variant`: the owner's own wish.

    Raises OwnerError when no variant is for what works here, or the wish cannot be had: it says what would.
    """
    if not model.variant:
        raise OwnerError(f"{model.name} cannot be pulled: {model.note}")
    if variant and variant not in [one.name for one in model.variant]:
        raise OwnerError(
            f"{model.name} has no variant {variant!r}; it has {', '.join(one.name for one in model.variant)}"
        )
    passed: list[tuple[str, str]] = []
    fit: list[tuple[int, Variant, str]] = []
    for one in model.variant:
        key, reason = _provider_for(one, providers, provider)
        if variant and one.name != variant:
            passed.append((one.name, "another was asked for"))
        elif not key and not variant:
            passed.append((one.name, reason))
        else:
            key = key or one.providers[0]
            fit.append((BEST_FIRST.index(key) if key in BEST_FIRST else len(BEST_FIRST), one, key))
    if not fit:
        raise OwnerError(
            f"no variant of {model.name} runs here: {'; '.join(f'{name}: {why}' for name, why in passed)}. "
            "`edged providers` says what is missing; --variant takes one all the same"
        )
    fit.sort(key=lambda entry: entry[0])
    _, chosen, key = fit[0]
    passed += [(one.name, f"{other} comes after {key}") for _, one, other in fit[1:]]
    why = "asked for" if variant else f"provider {key} " + ("was asked for" if provider != AUTO else "works here")
    return Pick(chosen, key, why, estimate(model, chosen, key, chosen.about_bytes, reading, reserve), tuple(passed))


def estimate(
    model: CatalogModel, variant: Variant, provider: str, files_bytes: int, reading: MemoryReading, reserve: Reserve
) -> Fit:
    """Memory before anything is fetched: nearly all of the files are packed int4 weights."""
    tokens = min(model.context_tokens, LONGROPE_TOKENS if model.longrope else model.context_tokens, SHORT_TOKENS)
    return Fit(
        weights_bytes=weights_before_load(files_bytes, files_bytes).total_bytes,
        kv_bytes=tokens * variant.kv_bytes_per_token,
        reserve_bytes=reserve.of(reading.usable_total_bytes),
        tokens=tokens,
        usable_bytes=reading.usable_total_bytes,
        free_bytes=reading.headroom_bytes,
        checked=provider in HOST,
    )


def _provider_for(variant: Variant, providers: Mapping[str, str], wanted: str) -> tuple[str, str]:
    """(the provider that would run it, "") or ("", why none would)."""
    if wanted != AUTO:
        if wanted in variant.providers:
            return wanted, ""
        return "", f"it is for {_either(variant.providers)}, not for {wanted}"
    for key in variant.providers:
        if providers.get(key) == "":
            return key, ""
    reasons = [f"{key}: {providers.get(key) or 'not known on this box'}" for key in variant.providers]
    return "", "; ".join(reasons)


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)
