"""Which provider a model is served with: what was wanted, what it got, why. Pure; never a silent fall to the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edged.errors import HardwareError
from edged.hardware.candidates import CPU_CANDIDATE
from edged.hardware.providers import ProviderReport
from edged.hardware.trial_messages import ProviderSpec
from edged.hardware.tune import Row, Setting, choose
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

    Raises HardwareError when `wanted` names no provider, when it cannot be had and `strict` says to refuse instead of
    falling back, and when nothing at all is usable.
    """
    known = {report.candidate.key: report for report in reports}
    if wanted != AUTO and wanted not in known:
        raise HardwareError(f"provider {wanted!r}: no such provider; choose {AUTO} or one of {', '.join(known)}")
    rows = table.rows if table else ()
    failures = (
        {failure.provider: f"failed while serving: {failure.reason}" for failure in table.failures} if table else {}
    )
    passed = {report.candidate.key: _reason(report) for report in reports if not report.usable} | failures
    passed |= {row.setting.provider: f"{row.verdict}: {row.reason}" for row in rows if _never_ok(rows, row, passed)}
    listed = tuple((key, reason) for key, reason in passed.items() if _worth_saying(known.get(key), key, wanted))
    if wanted != AUTO and wanted in passed and strict:
        raise HardwareError(f"provider {wanted}: {passed[wanted]} (strict_provider refuses to run on another)")
    usable = {key: report.spec for key, report in known.items() if report.spec and key not in passed}
    fell = False
    if wanted in usable:
        best = choose([row for row in rows if row.setting.provider == wanted], table.goal) if table else None
        why = "as wanted" + (f"; {best.why}" if best else "; not measured yet")
    else:
        fell = wanted != AUTO or bool(failures)
        best = choose([row for row in rows if row.setting.provider in usable], table.goal) if table else None
        why = best.why if best else "not measured yet: `edged tune` compares the providers"
        if wanted != AUTO:
            why = f"{wanted} was wanted: {passed[wanted]}; {why}"
        elif failures:
            why = "; ".join(f"{key} {reason}" for key, reason in failures.items()) + f"; {why}"
    setting = best.row.setting if best else Setting(wanted if wanted in usable else CPU_CANDIDATE.key)
    if setting.provider not in usable:
        told = "; ".join(f"{key}: {reason}" for key, reason in listed) or "nothing was found"
        raise HardwareError(f"no usable execution provider: {told}")
    tokens = best.row.slice.slice_tokens if best else None
    spec = usable[setting.provider]
    assert spec is not None
    return Selection(wanted, spec, setting, tokens, why, fell, listed)


def _reason(report: ProviderReport) -> str:
    refusal = report.refusal
    if refusal is None:
        return ""
    return f"{refusal.reason}; to mend: {refusal.mend}" if refusal.mend else refusal.reason


def _never_ok(rows: Sequence[Row], row: Row, passed: dict[str, str]) -> bool:
    """Whether no setting of this row's provider ever worked on the model."""
    key = row.setting.provider
    return key not in passed and not any(other.ok for other in rows if other.setting.provider == key)


def _worth_saying(report: ProviderReport | None, key: str, wanted: str) -> bool:
    """Not every absent provider is news: only those wanted, those this box speaks for, and those installed."""
    return key == wanted or report is None or bool(report.wanted_because or report.found)
