"""What parent and child of a trial say to each other: a request as an argument, lines of JSON on a private descriptor.

Both sides import this file; neither onnxruntime nor any other native library is imported here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

PHASES = ("start", "import", "load", "prefill", "decode", "compare")
"""The named stretches of a trial's life, in order: a verdict says in which one the child ended."""


@dataclass(frozen=True, slots=True)
class ProviderSpec:
    """How one execution provider is reached; everything a child needs to know about it.

    `genai_name` is "" for the CPU provider, which genai has without being told. `library` is the path of a plug-in's
    shared library ("" for a provider built into onnxruntime). `dtype` is the float type its kernels are made for.
    """

    key: str
    ort_name: str
    genai_name: str = ""
    options: tuple[tuple[str, str], ...] = ()
    library: str = ""
    dtype: str = "fp32"

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> ProviderSpec:
        options = tuple((str(name), str(value)) for name, value in raw.get("options", ()))
        return ProviderSpec(**{**raw, "options": options})


CPU = ProviderSpec(key="cpu", ort_name="CPUExecutionProvider")


@dataclass(frozen=True, slots=True)
class ProofRequest:
    """Run the package's tiny int4 graph on `provider`."""

    provider: ProviderSpec

    @staticmethod
    def from_json(text: str) -> ProofRequest:
        return ProofRequest(ProviderSpec.from_dict(json.loads(text)["provider"]))


@dataclass(frozen=True, slots=True)
class ProofAnswer:
    """What the tiny graph gave. Errors are the largest absolute differences; `scale` is the largest expected value.

    `strict` says whether the session could be built with falling back to the CPU forbidden;
    `placed` counts operators per provider that really holds them, as (provider, operator, count).
    """

    error: float
    error_against_cpu: float
    scale: float
    strict: bool
    placed: tuple[tuple[str, str, int], ...]
    load_s: float
    run_s: float
    runtime: str

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> ProofAnswer:
        placed = tuple((str(ep), str(op), int(count)) for ep, op, count in raw["placed"])
        return ProofAnswer(**{**raw, "placed": placed})


@dataclass(frozen=True, slots=True)
class MeasureRequest:
    """Time `model_dir` on `provider`.

    `threads` 0 leaves the number to the runtime; `cores` () leaves the process on all cores. Each of `slices` is a
    prefill slice size in tokens. The child stops measuring of itself after `budget_s`, with what it has by then.
    `whole` asks it to load the model with falling back to the CPU forbidden first: no use where the proof has shown
    that some operators fall, and it may compile the model twice.
    """

    model_dir: str
    provider: ProviderSpec
    threads: int = 0
    spinning: bool = True
    cores: tuple[int, ...] = ()
    slices: tuple[int, ...] = (64,)
    prompt_tokens: int = 128
    decode_tokens: int = 32
    budget_s: float = 20.0
    whole: bool = True

    @staticmethod
    def from_json(text: str) -> MeasureRequest:
        raw = json.loads(text)
        return MeasureRequest(
            **{
                **raw,
                "provider": ProviderSpec.from_dict(raw["provider"]),
                "cores": tuple(int(core) for core in raw["cores"]),
                "slices": tuple(int(tokens) for tokens in raw["slices"]),
            }
        )


@dataclass(frozen=True, slots=True)
class SliceRate:
    """Prefill speed at one slice size; `longest_s` is the longest single call seen at it."""

    slice_tokens: int
    prefill_tps: float
    longest_s: float


@dataclass(frozen=True, slots=True)
class MeasureAnswer:
    """What the model did on a provider.

    `cpu_s_per_token` is processor time of all threads per decoded token. `decode_share` is the part of the announced
    decode phase that was timed, to share out the energy by: the rest read prompts. `tokens` are the first greedy
    tokens and `top` the five likeliest after the prompt: they say whether two providers mean the same. `finite` is
    false when a logit was NaN or infinite, `whole` when some operators fell to the CPU.
    """

    load_s: float
    slices: tuple[SliceRate, ...]
    decode_tps: float
    decode_tokens: int
    cpu_s_per_token: float
    decode_share: float
    peak_bytes: int
    whole: bool
    finite: bool
    tokens: tuple[int, ...]
    top: tuple[int, ...]
    runtime: str

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> MeasureAnswer:
        return MeasureAnswer(
            **{
                **raw,
                "slices": tuple(SliceRate(**rate) for rate in raw["slices"]),
                "tokens": tuple(int(token) for token in raw["tokens"]),
                "top": tuple(int(token) for token in raw["top"]),
            }
        )


def to_json(message: ProofRequest | MeasureRequest | ProofAnswer | MeasureAnswer) -> str:
    """One line of JSON, without a line break inside."""
    return json.dumps(asdict(message), separators=(",", ":"))
