"""Runs the measurements one after the other, within one time limit, and gives the table. Blocks for that long."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edged.hardware.provider_rules import Refusal
from edged.hardware.providers import ProviderReport
from edged.hardware.trial_messages import MeasureAnswer, MeasureRequest
from edged.hardware.trial_runner import EnergyReader, Limits, Trial, run_measure
from edged.hardware.trial_verdict import Verdict
from edged.hardware.tune import CPU_KEY, Choice, Goal, Row, Setting, Step, choose, merged, next_step


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long tuning may take. `total_s` bounds it all, `trial_s` one child (loading a large model from a slow card
    takes a minute), `measure_s` what a child spends on measuring once the model is loaded."""

    total_s: float = 180.0
    trial_s: float = 120.0
    measure_s: float = 12.0


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores this process may use: how many physical ones, and the kernel's numbers per kind, fastest kind first."""

    physical: int
    clusters: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Tuned:
    """The table. `choice` is None when nothing worked; `left_out` says what was not tried for want of time."""

    rows: tuple[Row, ...]
    choice: Choice | None
    left_out: str
    wall_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Said before each measurement: its place in the order and what it is."""

    number: int
    step: Step
    spent_s: float


Measure = Callable[[MeasureRequest, Limits, MeasureAnswer | None], Trial[MeasureAnswer]]


def tune(
    variants: Mapping[str, Path],
    reports: Sequence[ProviderReport],
    goal: Goal,
    cores: Cores,
    *,
    memory_bytes: int,
    bounds: Bounds = Bounds(),
    measure: Measure | None = None,
    energy_j: EnergyReader | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Tuned:
    """Measure a model on every usable provider it has a variant for, and the CPU's knobs.

    `variants` maps a graph's kind (Candidate.graphs) to its folder; `memory_bytes` is the ceiling of each child.
    What is not usable is a row too, with its reason.
    """
    started = clock()
    run = measure or (lambda request, limits, cpu: run_measure(request, limits, cpu=cpu, energy_j=energy_j))
    rows, folders = _before(variants, reports)
    specs = {report.candidate.key: report.spec for report in reports if report.spec}
    cpu_answer: MeasureAnswer | None = None
    sliced, left_out, number, longest_s = False, "", 0, 0.0
    known = len(rows)
    while True:
        measured = rows[known:]
        step = next_step(measured, list(folders), goal, cores=cores.physical, clusters=cores.clusters, sliced=sliced)
        if step is None:
            break
        left_s = bounds.total_s - (clock() - started)
        if left_s <= 0 or (measured and left_s < longest_s):
            left_out = f"{step.setting} ({step.why}) and what would follow: the {bounds.total_s:g} s were used up"
            break
        number += 1
        progress(Progress(number, step, clock() - started))
        key = step.setting.provider
        spec = specs[key]
        request = MeasureRequest(
            model_dir=str(folders[key]),
            provider=spec,
            threads=step.setting.threads,
            spinning=step.setting.spinning,
            cores=step.setting.cores,
            slices=step.slices,
            budget_s=min(bounds.measure_s, left_s),
        )
        trial = run(request, Limits(min(bounds.trial_s, left_s), memory_bytes), cpu_answer)
        longest_s = max(longest_s, min(trial.wall_s, bounds.trial_s / 2))
        if key == CPU_KEY and cpu_answer is None:
            cpu_answer = trial.answer
        row = _row(step, trial, cpu_answer)
        same = next((index for index, old in enumerate(rows) if index >= known and old.setting == row.setting), None)
        if same is None:
            rows.append(row)
        else:
            rows[same] = merged(rows[same], row)
            sliced = True
    return Tuned(tuple(rows), choose(rows, goal), left_out, clock() - started)


def _before(variants: Mapping[str, Path], reports: Sequence[ProviderReport]) -> tuple[list[Row], dict[str, Path]]:
    """Rows of providers that need no measuring (unusable, or no variant of the model), and the folder for the others.

    Providers that this box neither wants nor has are left out.
    """

    rows, folders = [], {}
    for report in reports:
        setting = Setting(report.candidate.key)
        if report.refusal:
            if report.wanted_because or report.found:
                rows.append(Row(setting, _verdict(report), _sentence(report.refusal)))
            continue
        kind = next((kind for kind in sorted(report.candidate.graphs) if kind in variants), None)
        if kind is None:
            rows.append(Row(setting, Verdict.REFUSED, "the model has no variant for it"))
        else:
            folders[report.candidate.key] = variants[kind]
    return rows, folders


def _verdict(report: ProviderReport) -> Verdict:
    proved = report.proof and report.proof.verdict is not Verdict.OK
    return report.proof.verdict if report.proof and proved else Verdict.REFUSED


def _sentence(refusal: Refusal) -> str:
    return f"{refusal.reason}; to mend: {refusal.mend}" if refusal.mend else refusal.reason


def _row(step: Step, trial: Trial[MeasureAnswer], cpu: MeasureAnswer | None) -> Row:
    answer = trial.answer
    if answer is None:
        return Row(step.setting, trial.verdict, trial.reason, peak_bytes=trial.peak_bytes, wall_s=trial.wall_s)
    compared = min(len(answer.tokens), len(cpu.tokens)) if cpu else 0
    return Row(
        setting=step.setting,
        verdict=trial.verdict,
        reason=trial.reason,
        load_s=answer.load_s,
        slices=answer.slices,
        decode_tps=answer.decode_tps,
        cpu_s_per_token=answer.cpu_s_per_token,
        joules_per_token=trial.energy_j / answer.decode_tokens if trial.energy_j is not None else None,
        peak_bytes=trial.peak_bytes,
        whole=answer.whole,
        agrees=sum(a == b for a, b in zip(answer.tokens, cpu.tokens, strict=False)) if cpu else 0,
        compared=compared,
        wall_s=trial.wall_s,
    )
