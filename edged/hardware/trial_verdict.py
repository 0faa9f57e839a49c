"""How a trial ended, in one word and one sentence. Pure: exit status, last words and numbers in, verdict out."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum

from edged.hardware.trial_messages import MeasureAnswer, ProofAnswer

TOLERANCE = 0.05
"""Largest error of the proof graph that passes, as a share of its largest value. Half precision and int8 activations
stay below 0.01 of it; a provider that mixes up one weight, head or position is above 0.2."""

_NO_MEMORY = ("bad_alloc", "cannot allocate memory", "out of memory", "failed to allocate memory", "memoryerror")


class Verdict(StrEnum):
    """What a trial showed."""

    OK = "ok"
    CRASHED = "crashed"
    HUNG = "hung"
    WRONG_ANSWER = "wrong answer"
    REFUSED = "refused"
    OUT_OF_MEMORY = "out of memory"


class Ended(StrEnum):
    """Who ended the child."""

    ITSELF = "itself"
    DEADLINE = "deadline"
    CEILING = "ceiling"
    BOX = "box"


@dataclass(frozen=True, slots=True)
class LastWords:
    """What is known of a child that is gone.

    `status` is its exit status, negative for a signal; `phase` the last it announced; `refusal` what it said when it
    gave up in an orderly way ("" otherwise); `answered` whether an answer came; `kernel_oom` whether the kernel's
    count of out-of-memory kills rose meanwhile.
    """

    status: int
    phase: str
    ended: Ended
    answered: bool
    refusal: str
    output_tail: str
    kernel_oom: bool
    deadline_s: float
    ceiling_bytes: int
    peak_bytes: int


def classify(words: LastWords) -> tuple[Verdict, str]:
    """Verdict and reason ("" when it is ok). An answer counts even when the child then fell over while leaving."""
    while_ = f"while in {words.phase}"
    if words.answered:
        return Verdict.OK, ""
    if words.ended is Ended.DEADLINE:
        return Verdict.HUNG, f"no answer within {words.deadline_s:g} s, {while_}; it was killed"
    if words.ended is Ended.CEILING:
        took, ceiling = (f"{size / 2**20:.0f} MiB" for size in (words.peak_bytes, words.ceiling_bytes))
        return Verdict.OUT_OF_MEMORY, f"took {took}, the ceiling is {ceiling}, {while_}; it was killed"
    if words.ended is Ended.BOX:
        took = f"{words.peak_bytes / 2**20:.0f} MiB"
        return Verdict.OUT_OF_MEMORY, f"took {took} and would have left the box without memory, {while_}; it was killed"
    if _says_no_memory(words.refusal) or (words.status != 0 and _says_no_memory(words.output_tail)):
        return Verdict.OUT_OF_MEMORY, f"an allocation failed {while_}: {words.refusal or last_line(words.output_tail)}"
    if words.refusal:
        return Verdict.REFUSED, words.refusal
    if words.status < 0:
        if -words.status == signal.SIGKILL and words.kernel_oom:
            return Verdict.OUT_OF_MEMORY, f"the kernel ran out of memory and killed it, {while_}"
        return Verdict.CRASHED, f"{_signal_name(-words.status)} {while_}"
    said = last_line(words.output_tail)
    return Verdict.CRASHED, f"ended with status {words.status} without an answer, {while_}" + (
        f": {said}" if said else ""
    )


def judge_proof(answer: ProofAnswer, ort_name: str) -> tuple[Verdict, str]:
    """Whether the tiny graph's numbers are right and `ort_name` is what computed them."""
    mine = sum(count for ep, _, count in answer.placed if ep == ort_name)
    if answer.placed and not mine and not answer.strict:
        return Verdict.REFUSED, f"took none of the graph's operators: all fell to {_others(answer, ort_name)}"
    limit = TOLERANCE * answer.scale
    worst = max(answer.error, answer.error_against_cpu)
    if not worst <= limit:  # also when it is NaN
        return (
            Verdict.WRONG_ANSWER,
            f"off by {worst:.3g} where {limit:.3g} is allowed (values reach {answer.scale:.3g})",
        )
    return Verdict.OK, ""


def judge_measure(answer: MeasureAnswer, cpu: MeasureAnswer | None) -> tuple[Verdict, str]:
    """Whether the model's answer can be believed: finite, and the likeliest token among the CPU's five likeliest."""
    if not answer.finite:
        return Verdict.WRONG_ANSWER, "the model's logits hold NaN or infinity"
    if cpu and answer.top and cpu.top and answer.top[0] not in cpu.top:
        return Verdict.WRONG_ANSWER, "its likeliest token is not among the five likeliest of the CPU"
    return Verdict.OK, ""


def fell_to_cpu(answer: ProofAnswer, ort_name: str) -> tuple[str, ...]:
    """Names of the graph's operators that another provider than `ort_name` took."""
    return tuple(sorted({op for ep, op, _ in answer.placed if ep != ort_name}))


def last_line(text: str) -> str:
    """The last line that is not empty, at most 300 characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _others(answer: ProofAnswer, ort_name: str) -> str:
    return ", ".join(sorted({ep for ep, _, _ in answer.placed if ep != ort_name}))


def _says_no_memory(text: str) -> bool:
    return any(sign in text.lower() for sign in _NO_MEMORY)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
