"""Which provider a model is served with: what was wanted, what it got, why. Pure; never a silent fall to the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edged.errors import HardwareError
from edged.hardware.providers import ProviderReport
from edged.hardware.trial_messages import ProviderSpec
from edged.hardware.tune import Choice, Row, Setting, choose
from edged.hardware.tune_table import Table

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer. `fell` is true when it is not what was wanted (by name, or by measurement before it failed);
    `slice_tokens` is None when the model was not measured; `passed_over` holds (provider, reason)."""

    wanted: str
    got: ProviderSpec
    setting: Setting
    slice_tokens: int | None
    why: str
    fell: bool
    passed_over: tuple[tuple[str, str], ...]


def select(wanted: str, reports: Sequence[ProviderReport], table: Table | None, *, strict: bool) -> Selection:
    """Choose for one model. `wanted` is "auto" or a provider's key; `table` its measurements, None if there are none.

    A provider that failed while serving is passed over as long as another is left. Raises HardwareError when `wanted`
    names no provider, when it cannot be had and `strict` says to refuse instead of falling back, and when nothing at
    all is usable.
    """
    known = {report.candidate.key: report for report in reports}
    if wanted != AUTO and wanted not in known:
        raise HardwareError(f"provider {wanted!r}: no such provider; choose {AUTO} or one of {', '.join(known)}")
    rows = table.rows if table else ()
    refused = _refused(reports, rows)
    failed = {one.provider: f"failed while serving: {one.reason}" for one in table.failures} if table else {}
    passed = failed | refused
    if strict and wanted in passed:
        raise HardwareError(f"provider {wanted}: {passed[wanted]} (strict_provider refuses to run on another)")
    fit = {key: report.spec for key, report in known.items() if report.spec and key not in refused}
    if not fit:
        raise HardwareError(
            f"no usable execution provider: {'; '.join(f'{key}: {why}' for key, why in passed.items())}"
        )
    standing = [key for key in fit if key not in failed] or list(fit)
    fell = wanted not in standing and (wanted != AUTO or bool(failed))
    allowed = [wanted] if wanted in standing else standing
    best = choose([row for row in rows if row.setting.provider in allowed], table.goal) if table else None
    setting = best.row.setting if best else Setting(allowed[0])
    spec = fit[setting.provider]
    assert spec is not None
    return Selection(
        wanted=wanted,
        got=spec,
        setting=setting,
        slice_tokens=best.row.slice.slice_tokens if best else None,
        why=_why(wanted, passed, failed, best),
        fell=fell,
        passed_over=tuple((key, why) for key, why in passed.items() if _worth_saying(known.get(key), key, wanted)),
    )


def _refused(reports: Sequence[ProviderReport], rows: Sequence[Row]) -> dict[str, str]:
    """Provider → why it cannot serve this model: unusable on this box, or tried on the model and never worked."""
    refused = {}
    for report in reports:
        if report.refusal:
            mend = f"; to mend: {report.refusal.mend}" if report.refusal.mend else ""
            refused[report.candidate.key] = report.refusal.reason + mend
    worked = {row.setting.provider for row in rows if row.ok}
    for row in rows:
        if row.setting.provider not in worked:
            refused.setdefault(row.setting.provider, f"{row.verdict}: {row.reason}")
    return refused


def _why(wanted: str, passed: dict[str, str], failed: dict[str, str], best: Choice | None) -> str:
    """In one sentence: what stood in the way of what was wanted, and what spoke for what was taken."""
    measured = best.why if best else "not measured yet: `edged tune` compares the providers"
    if wanted in passed:
        return f"{wanted} was wanted: {passed[wanted]}; {measured}"
    if wanted != AUTO:
        return f"as wanted; {measured}"
    return "; ".join([*(f"{key} {reason}" for key, reason in failed.items()), measured])


def _worth_saying(report: ProviderReport | None, key: str, wanted: str) -> bool:
    """Not every absent provider is news: only those wanted, those this box speaks for, and those installed."""
    return key == wanted or report is None or bool(report.wanted_because or report.found)
