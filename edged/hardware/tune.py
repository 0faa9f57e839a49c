"""The choice of how to run a model, from what was measured. Pure: rows in, the next thing to try or the winner out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from edged.hardware.trial_messages import SliceRate
from edged.hardware.trial_verdict import Verdict

SLICE_S = 0.5
"""A prefill slice may take no longer: cancel, deadlines and other clients wait for it."""

TIE = 0.03
"""Two settings closer than this are taken as equal: repeated runs on a quiet box differ by as much."""

FIRST_SLICES = (64,)
MORE_SLICES = (16, 32, 128, 256)

CPU_KEY = "cpu"


class Goal(StrEnum):
    """What the box is for.

    latency: the least time to answer a short request (256 tokens in, 64 out) · throughput: the most work on long
    prompts with short answers (1024 in, 64 out), which is what a busy box does · memory: the least memory ·
    power: the least energy for a decoded token, or processor time where the box has no meter.
    """

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    MEMORY = "memory"
    POWER = "power"


_REQUEST = {Goal.LATENCY: (256, 64), Goal.THROUGHPUT: (1024, 64)}


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a model: `threads` 0 is the runtime's own number, `cores` () means all."""

    provider: str
    threads: int = 0
    spinning: bool = True
    cores: tuple[int, ...] = ()

    def __str__(self) -> str:
        threads = f", {self.threads} thread{'s' if self.threads > 1 else ''}" if self.threads else ""
        cores = f", cores {','.join(map(str, self.cores))}" if self.cores else ""
        return f"{self.provider}{threads}{cores}{'' if self.spinning else ', no spinning'}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a setting with its figures, or why it has none (`verdict` is then not OK).

    Rates are tokens per second of one stream; `agrees` counts the first tokens that equal the CPU's, of
    `compared`; `whole` is false when some operators fell to the CPU; `joules_per_token` is None without a meter.
    """

    setting: Setting
    verdict: Verdict
    reason: str = ""
    load_s: float = 0.0
    slices: tuple[SliceRate, ...] = ()
    decode_tps: float = 0.0
    cpu_s_per_token: float = 0.0
    joules_per_token: float | None = None
    peak_bytes: int = 0
    whole: bool = True
    agrees: int = 0
    compared: int = 0
    wall_s: float = 0.0

    @property
    def ok(self) -> bool:
        return self.verdict is Verdict.OK and self.decode_tps > 0 and bool(self.slices)

    @property
    def slice(self) -> SliceRate:
        """The shortest slice within TIE of the fastest, of those that keep to SLICE_S. Only of a row that is `ok`."""
        within = [rate for rate in self.slices if rate.longest_s <= SLICE_S]
        fit = within or [min(self.slices, key=lambda rate: rate.slice_tokens)]
        fastest = max(rate.prefill_tps for rate in fit)
        near = [rate for rate in fit if rate.prefill_tps >= fastest * (1 - TIE)]
        return min(near, key=lambda rate: rate.slice_tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """What to measure next, and why."""

    setting: Setting
    slices: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The winner, with its figures in `row` and the reason in a sentence for people."""

    row: Row
    goal: Goal
    why: str


def seconds_for(row: Row, prompt_tokens: int, answer_tokens: int) -> float:
    """Time one request of that shape takes alone: prompt / prefill rate + answer / decode rate."""
    return prompt_tokens / row.slice.prefill_tps + answer_tokens / row.decode_tps


def cost(row: Row, goal: Goal, *, metered: bool = False) -> float:
    """What `goal` wants least of: seconds, bytes, joules (`metered`) or processor seconds. Only of an `ok` row."""
    if goal in _REQUEST:
        return seconds_for(row, *_REQUEST[goal])
    if goal is Goal.MEMORY:
        return float(row.peak_bytes)
    return row.joules_per_token if metered and row.joules_per_token is not None else row.cpu_s_per_token


def choose(rows: Iterable[Row], goal: Goal, *, failed: Sequence[str] = ()) -> Choice | None:
    """The best row for `goal`, leaving out providers in `failed`; None when nothing worked.

    Within TIE of the best, the one that costs least processor time wins: what a tie leaves over belongs to the
    box's own programs.
    """
    fit = [row for row in rows if row.ok and row.setting.provider not in failed]
    if not fit:
        return None
    metered = all(row.joules_per_token is not None for row in fit)
    least = min(cost(row, goal, metered=metered) for row in fit)
    ties = [row for row in fit if cost(row, goal, metered=metered) <= least * (1 + TIE)]
    row = min(ties, key=lambda row: (row.cpu_s_per_token, seconds_for(row, *_REQUEST[Goal.LATENCY])))
    return Choice(row, goal, _why(row, goal, len(fit), metered=metered))


def next_step(
    rows: Sequence[Row],
    providers: Sequence[str],
    goal: Goal,
    *,
    cores: int,
    clusters: Sequence[Sequence[int]] = (),
    sliced: bool = False,
) -> Step | None:
    """What to measure next, one setting after the other; None when there is nothing left.

    First every provider as it is. Then, for the CPU, one knob at a time from the best so far: number of threads,
    spinning, pinning to a cluster. Last, unless `sliced`, other slice sizes for the winner. `cores` are the physical
    cores this process may use, `clusters` the kinds of cores (fastest first) by the kernel's numbers. There are at
    most providers + thread counts + 1 + clusters + 1 steps.
    """
    tried = {row.setting for row in rows}
    for provider in providers:
        if Setting(provider) not in tried:
            return Step(Setting(provider), FIRST_SLICES, "as the runtime sets it")
    cpu = [row for row in rows if row.setting.provider == CPU_KEY]
    for threads in thread_counts(cores):
        if cpu and (setting := Setting(CPU_KEY, threads)) not in tried:
            return Step(setting, FIRST_SLICES, "number of threads")
    best = choose(cpu, goal)
    if best:
        for setting, why in _variations(best.row.setting, cpu, clusters):
            if setting not in tried:
                return Step(setting, FIRST_SLICES, why)
    winner = choose(rows, goal)
    if winner and not sliced:
        return Step(winner.row.setting, MORE_SLICES, "slice size")
    return None


def thread_counts(cores: int) -> tuple[int, ...]:
    """Thread counts worth trying: all physical cores, one fewer (a core for the box's own programs), half, one."""
    return tuple(sorted({count for count in (cores, cores - 1, cores // 2, 1) if count >= 1}, reverse=True))


def merged(old: Row, new: Row) -> Row:
    """Two measurements of one setting: the slices of both, the other figures of the first unless it had none."""
    if not new.ok:
        return old
    if not old.ok:
        return new
    slices = {rate.slice_tokens: rate for rate in (*new.slices, *old.slices)}
    kept = {name: getattr(old, name) for name in Row.__slots__ if name not in ("slices", "wall_s", "peak_bytes")}
    return Row(
        **kept,
        slices=tuple(slices[tokens] for tokens in sorted(slices)),
        wall_s=old.wall_s + new.wall_s,
        peak_bytes=max(old.peak_bytes, new.peak_bytes),
    )


def _variations(best: Setting, cpu: Sequence[Row], clusters: Sequence[Sequence[int]]) -> Iterable[tuple[Setting, str]]:
    """Spinning off at the best so far, once; then pinning to each cluster, with as many threads as it has cores."""
    if all(row.setting.spinning for row in cpu):
        yield Setting(best.provider, best.threads, False, best.cores), "spinning"
    if len(clusters) > 1:
        for cluster in clusters:
            yield Setting(CPU_KEY, len(cluster), best.spinning, tuple(cluster)), "pinning"


def _why(row: Row, goal: Goal, fit: int, *, metered: bool) -> str:
    amount = cost(row, goal, metered=metered)
    said = {
        Goal.LATENCY: f"{amount:.2f} s for 256 tokens in and 64 out",
        Goal.THROUGHPUT: f"{amount:.2f} s for 1024 tokens in and 64 out",
        Goal.MEMORY: f"{amount / 2**20:.0f} MiB at its peak",
        Goal.POWER: f"{amount:.3g} J per token"
        if metered
        else f"{amount:.3g} s of processor time per token (no meter)",
    }[goal]
    return f"best for {goal} of {fit} that worked: {said}" if fit > 1 else f"the only one that worked: {said}"
