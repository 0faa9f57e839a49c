"""Which execution providers this box wants, has, and can prove; and for each it cannot use, why and what would mend it.

A provider counts as usable only after the package's tiny int4 graph has really run on it in a child process and given
the right numbers. Reads what it is given (accelerators, packages); the only thing it starts are those children.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edged.hardware.candidates import CANDIDATES, Candidate
from edged.hardware.packages import Found, Package, clashing, find, unknown_plugins
from edged.hardware.provider_rules import Box, Refusal, Why, absent, failed, unserved, wanted_because
from edged.hardware.trial_messages import ProofAnswer, ProofRequest, ProviderSpec
from edged.hardware.trial_runner import Limits, Trial, run_proof
from edged.hardware.trial_verdict import Verdict, fell_to_cpu

PROOF_LIMITS = Limits(deadline_s=60.0, memory_bytes=4 << 30)
"""Ample for a graph of a few kilobytes: a GPU's first start compiles kernels and loads gigabytes of libraries."""

Prove = Callable[[ProofRequest, Limits], Trial[ProofAnswer]]


@dataclass(frozen=True, slots=True)
class Proof:
    """What running the tiny graph showed.

    `error` and `scale` as in ProofAnswer (None when no numbers came); `ran_here` of the graph's `operators` ran on the
    provider, `fell_to_cpu` names those that did not.
    """

    verdict: Verdict
    reason: str
    wall_s: float
    peak_bytes: int
    error: float | None = None
    scale: float | None = None
    operators: int = 0
    ran_here: int = 0
    fell_to_cpu: tuple[str, ...] = ()
    runtime: str = ""


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """All that is known of one candidate. `spec` is set when it is installed, `refusal` exactly when it is unusable."""

    candidate: Candidate
    wanted_because: str
    found: str
    spec: ProviderSpec | None
    proof: Proof | None
    refusal: Refusal | None

    @property
    def usable(self) -> bool:
        return self.refusal is None

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.refusal:
            return self.refusal.reason
        if self.proof and self.proof.fell_to_cpu:
            part = f"{self.proof.ran_here} of {self.proof.operators} operators ran on it"
            return f"works in part: {part}, the CPU took {', '.join(self.proof.fell_to_cpu)}"
        return "works"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: see `from_dict`."""
        raw = asdict(self)
        for field in ("wheels", "graphs"):
            raw["candidate"][field] = sorted(raw["candidate"][field])
        return raw

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> ProviderReport:
        """The report that `to_dict` made, also after a trip through JSON. Raises KeyError, TypeError or ValueError."""
        plain = dict(raw["candidate"])
        candidate = Candidate(
            **{
                **plain,
                "options": tuple((str(name), str(value)) for name, value in plain["options"]),
                "wheels": frozenset(plain["wheels"]),
                "graphs": frozenset(plain["graphs"]),
            }
        )
        proof, refusal = raw["proof"], raw["refusal"]
        return ProviderReport(
            candidate=candidate,
            wanted_because=str(raw["wanted_because"]),
            found=str(raw["found"]),
            spec=ProviderSpec.from_dict(raw["spec"]) if raw["spec"] else None,
            proof=proof
            and Proof(**{**proof, "verdict": Verdict(proof["verdict"]), "fell_to_cpu": tuple(proof["fell_to_cpu"])}),
            refusal=refusal and Refusal(**{**refusal, "why": Why(refusal["why"])}),
        )


def examine(
    box: Box,
    packages: Sequence[Package],
    *,
    limits: Limits = PROOF_LIMITS,
    prove: Prove = run_proof,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[ProviderReport, ...]:
    """A report for every candidate in the table and every plug-in found besides; CPU first.

    Whatever is installed is tried, also where nothing speaks for it: the child costs less than a second when the
    device is absent, and files below /sys may not tell all. Takes at most `limits.deadline_s` per installed provider.
    """
    pairs = [(candidate, find(candidate, packages)) for candidate in CANDIDATES]
    reports = []
    for candidate, found in [*pairs, *unknown_plugins(packages)]:
        because = wanted_because(candidate, box)
        if found is None:
            reports.append(ProviderReport(candidate, because, "", None, None, absent(candidate, because, box)))
            continue
        progress(candidate.title)
        spec = spec_of(candidate, found)
        proof = _proof(prove(ProofRequest(spec), limits), spec)
        refusal = None if proof.verdict is Verdict.OK else failed(candidate, found, proof.verdict, proof.reason, box)
        refusal = refusal or unserved(candidate, packages)
        reports.append(ProviderReport(candidate, because, f"{found.package} {found.version}", spec, proof, refusal))
    return tuple(reports)


def spec_of(candidate: Candidate, found: Found) -> ProviderSpec:
    """What a child needs to reach `candidate`."""
    return ProviderSpec(
        key=candidate.key,
        ort_name=candidate.ort_name,
        genai_name=candidate.genai_name,
        options=candidate.options,
        library=str(found.library) if found.library else "",
        dtype=candidate.dtype,
    )


def warnings(packages: Sequence[Package]) -> tuple[str, ...]:
    """What is wrong with the installation as a whole."""
    names = clashing(packages)
    if not names:
        return ()
    advice = "which one runs is chance. Uninstall all of them, then install the one you mean."
    return (f"{' and '.join(names)} are installed on top of each other; {advice}",)


def _proof(trial: Trial[ProofAnswer], spec: ProviderSpec) -> Proof:
    answer = trial.answer
    if answer is None:
        return Proof(trial.verdict, trial.reason, trial.wall_s, trial.peak_bytes)
    placed = [(ep, count) for ep, _, count in answer.placed]
    return Proof(
        verdict=trial.verdict,
        reason=trial.reason,
        wall_s=trial.wall_s,
        peak_bytes=trial.peak_bytes,
        error=max(answer.error, answer.error_against_cpu),
        scale=answer.scale,
        operators=sum(count for _, count in placed),
        ran_here=sum(count for ep, count in placed if ep == spec.ort_name),
        fell_to_cpu=fell_to_cpu(answer, spec.ort_name),
        runtime=answer.runtime,
    )
