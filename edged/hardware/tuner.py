"""Runs the measurements one after the other, within one time limit, and gives the table. Blocks for that long."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
    rows, folders = _before(variants, reports)
    bench = _Bench(folders, reports, memory_bytes, bounds, measure or partial(_measure, energy_j))
    left_out = ""
    while step := next_step(
        bench.rows, list(folders), goal, cores=cores.physical, clusters=cores.clusters, sliced=bench.sliced
    ):
        left_s = bounds.total_s - (clock() - started)
        if left_s <= bench.expected_s(step):
            left_out = f"{step.setting} ({step.why}) and what would follow: the {bounds.total_s:g} s were used up"
            break
        progress(Progress(bench.trials + 1, step, clock() - started))
        bench.take(step, left_s)
    rows += bench.rows
    return Tuned(tuple(rows), choose(rows, goal), left_out, clock() - started)


class _Bench:
    """Runs one step after the other; owner of the rows that were measured and of the CPU's answer, the yardstick."""

    def __init__(
        self,
        folders: Mapping[str, Path],
        reports: Sequence[ProviderReport],
        memory_bytes: int,
        bounds: Bounds,
        measure: Measure,
    ) -> None:
        self.rows: list[Row] = []
        self.sliced = False
        self.trials = 0
        self._folders, self._memory_bytes, self._bounds, self._measure = folders, memory_bytes, bounds, measure
        self._specs = {report.candidate.key: report.spec for report in reports if report.spec}
        self._in_part = {report.candidate.key for report in reports if report.proof and report.proof.fell_to_cpu}
        self._cpu: MeasureAnswer | None = None

    def expected_s(self, step: Step) -> float:
        """How long the step will take: as long as the last one with this provider; 0 when there was none."""
        return next((row.wall_s for row in reversed(self.rows) if row.setting.provider == step.setting.provider), 0.0)

    def take(self, step: Step, left_s: float) -> None:
        """Measure, and add the row or what it adds to one."""
        setting = step.setting
        request = MeasureRequest(
            model_dir=str(self._folders[setting.provider]),
            provider=self._specs[setting.provider],
            threads=setting.threads,
            spinning=setting.spinning,
            cores=setting.cores,
            slices=step.slices,
            budget_s=min(self._bounds.measure_s, left_s),
            whole=setting.provider not in self._in_part,
        )
        limits = Limits(min(self._bounds.trial_s, left_s), self._memory_bytes)
        trial = self._measure(request, limits, self._cpu)
        self.trials += 1
        if setting.provider == CPU_KEY:
            self._cpu = self._cpu or trial.answer
        row = _row(step, trial, self._cpu)
        same = next((index for index, old in enumerate(self.rows) if old.setting == setting), None)
        if same is None:
            self.rows.append(row)
        else:
            self.rows[same] = merged(self.rows[same], row)
            self.sliced = True


def _measure(
    energy_j: EnergyReader | None, request: MeasureRequest, limits: Limits, cpu: MeasureAnswer | None
) -> Trial[MeasureAnswer]:
    return run_measure(request, limits, cpu=cpu, energy_j=energy_j)


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
        joules_per_token=_joules_per_token(trial.energy_j, answer),
        peak_bytes=trial.peak_bytes,
        whole=answer.whole,
        agrees=sum(a == b for a, b in zip(answer.tokens, cpu.tokens, strict=False)) if cpu else 0,
        compared=compared,
        wall_s=trial.wall_s,
    )


def _joules_per_token(energy_j: float | None, answer: MeasureAnswer) -> float | None:
    """The decode phase's energy, less the share of it that went into reading prompts again."""
    return None if energy_j is None else energy_j * answer.decode_share / answer.decode_tokens
