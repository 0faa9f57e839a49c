"""The child of a trial: runs one provider's native code for real, in a process that may die of it.

    python -m edged.hardware.trial proof   --fd N --parent PID REQUEST_JSON
    python -m edged.hardware.trial measure --fd N --parent PID REQUEST_JSON

Started by trial_runner.py and by nobody else. Answers in lines of JSON on descriptor N, so that what native code prints
on stdout and stderr does no harm. The only file of this package that imports onnxruntime and onnxruntime-genai.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.hardware import trial_faults
from edged.hardware.trial_messages import (
    CPU,
    MeasureAnswer,
    MeasureRequest,
    ProofAnswer,
    ProofRequest,
    ProviderSpec,
    SliceRate,
)
from edged.hardware.trial_process import Voice, first_lines, leave, options_of, peak_bytes, settle
from edged.hardware.trial_timing import bearable, time_decode, time_prefill

DATA = Path(__file__).resolve().parent / "data"
NO_CPU = ("session.disable_cpu_ep_fallback", "1")
FALLBACK_REFUSED = "fallback to CPU EP has been explicitly disabled"
"""What onnxruntime says when NO_CPU is set and an operator had to go to the CPU (1.24 and 1.31)."""

WARM_TOKENS = 16
KEPT_TOKENS = 4
"""Every provider reads the same first WARM_TOKENS and decodes KEPT_TOKENS: what they mean is compared over these."""


class Refused(Exception):
    """This provider cannot do it, and says so; the text is the reason."""


def main(arguments: list[str]) -> int:
    options = options_of(arguments)
    settle(options.parent, options.data_bytes)
    voice = Voice(options.fd)
    try:
        lie = trial_faults.commit(options.fault) if options.fault and trial_faults.allowed() else False
        voice.phase("import")
        if options.mode == "proof":
            voice.answer(proof(ProofRequest.from_json(options.request), voice, lie=lie))
        else:
            voice.answer(measure(MeasureRequest.from_json(options.request), voice, lie=lie))
    except Refused as refusal:
        voice.refuse(str(refusal))
    except MemoryError:
        voice.refuse("MemoryError")
    except Exception as error:  # onnxruntime and genai raise whatever their C++ threw
        voice.refuse(f"{type(error).__name__}: {first_lines(str(error))}")
    return 0


@dataclass(frozen=True)
class Case:
    """Inputs and expected outputs of the tiny graph, from the package's data (made by tools/make_proof_graph.py)."""

    x: NDArray[Any]
    expected: NDArray[np.float64]
    prefill_tokens: int
    cache_shape: tuple[int, int, int, int]

    @staticmethod
    def load() -> Case:
        with np.load(DATA / "proof.npz", allow_pickle=False) as case:
            kv_heads, head = (int(size) for size in case["cache"])
            return Case(case["x"], case["y"].astype(np.float64), int(case["prefill"]), (1, kv_heads, 0, head))


def proof(request: ProofRequest, voice: Voice, *, lie: bool) -> ProofAnswer:
    """The tiny graph on the provider, falling back to the CPU forbidden, else allowed; then on the CPU to compare.

    Raises Refused when the provider is not there.
    """
    import onnxruntime as ort

    spec, case = request.provider, Case.load()
    voice.phase("load")
    devices = _register(ort, spec)
    started = time.monotonic()
    session, strict = None, False
    if spec.ort_name != CPU.ort_name:  # the CPU provider and NO_CPU exclude each other
        with contextlib.suppress(Exception):
            session, strict = _session(ort, spec, devices, strict=True), True
    session = session or _session(ort, spec, devices, strict=False)
    if spec.ort_name not in session.get_providers():
        raise Refused(f"{spec.ort_name} could not be created: {_device_hint(spec)}")
    load_s = time.monotonic() - started
    voice.phase("prefill")
    started = time.monotonic()
    got = _run(session, case, spec.dtype)
    run_s = time.monotonic() - started
    if lie:
        got = np.roll(got, 1, axis=1)
    voice.phase("compare")
    reference = _run(_session(ort, CPU, [], strict=False), case, CPU.dtype)
    return ProofAnswer(
        error=float(np.abs(got - case.expected).max()),
        error_against_cpu=float(np.abs(got - reference).max()),
        scale=float(np.abs(case.expected).max()),
        strict=strict,
        placed=_placed(session, spec, strict=strict),
        load_s=load_s,
        run_s=run_s,
        runtime=f"onnxruntime {ort.__version__}",
    )


def _session(ort: Any, spec: ProviderSpec, devices: list[Any], *, strict: bool) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if strict:
        options.add_session_config_entry(*NO_CPU)
    graph = str(DATA / f"proof-{spec.dtype}.onnx")
    if devices:
        options.add_provider_for_devices(devices, dict(spec.options))
        return ort.InferenceSession(graph, options)
    return ort.InferenceSession(graph, options, providers=[(spec.ort_name, dict(spec.options))])


def _run(session: Any, case: Case, dtype: str) -> NDArray[np.float64]:
    """Prefill, then decode with the cache that the prefill left; the rows of both."""
    kind = np.float16 if dtype == "fp16" else np.float32
    key = value = np.zeros(case.cache_shape, kind)
    rows, done = [], 0
    for part in (case.x[: case.prefill_tokens], case.x[case.prefill_tokens :]):
        done += len(part)
        feeds = {"x": part[None].astype(kind), "past_key": key, "past_value": value}
        feeds |= {"seqlens_k": np.array([done - 1], np.int32), "total_length": np.array([done], np.int32)}
        y, key, value = session.run(None, feeds)
        rows.append(y[0])
    return np.concatenate(rows).astype(np.float64)


def _register(ort: Any, spec: ProviderSpec) -> list[Any]:
    """Make the provider known; returns its devices if it is a plug-in, [] if it is built in. Raises Refused."""
    if not spec.library:
        if spec.ort_name not in ort.get_available_providers():
            raise Refused(f"this build of onnxruntime ({ort.__version__}) has no {spec.ort_name}")
        return []
    ort.register_execution_provider_library(spec.key, spec.library)
    wanted = dict(spec.options).get("device_type", "")
    mine = [device for device in ort.get_ep_devices() if device.ep_name == spec.ort_name]
    fit = [device for device in mine if not wanted or wanted in device.ep_metadata.get("ov_device", wanted)]
    if not fit:
        raise Refused(f"the plug-in {Path(spec.library).name} loaded but lists no {wanted or 'device'} on this box")
    return fit[:1]


def _placed(session: Any, spec: ProviderSpec, *, strict: bool) -> tuple[tuple[str, str, int], ...]:
    """Operators per provider, as (provider, operator, count); () when this onnxruntime cannot tell."""
    counts: dict[tuple[str, str], int] = {}
    try:
        for group in session.get_provider_graph_assignment_info():
            for node in group.get_nodes():
                key = (group.ep_name, node.op_type)
                counts[key] = counts.get(key, 0) + 1
    except Exception:  # before 1.24 only whether it was the whole graph is known
        return ((spec.ort_name, "every operator", 1),) if strict else ()
    return tuple((ep, op, count) for (ep, op), count in sorted(counts.items()))


def _device_hint(spec: ProviderSpec) -> str:
    device = dict(spec.options).get("device_type")
    return f"no device {device} that it can use" if device else "its libraries or its device are missing"


def measure(request: MeasureRequest, voice: Voice, *, lie: bool) -> MeasureAnswer:
    """Load the model on the provider, read a made-up prompt, decode a few tokens, all timed."""
    if request.cores:
        os.sched_setaffinity(0, request.cores)  # before any thread pool exists: they inherit it
    import onnxruntime_genai as og

    spec = request.provider
    voice.phase("load")
    if spec.library:
        og.register_execution_provider_library(spec.key, spec.library)
    started = time.monotonic()
    model, whole = _load(og, request)
    load_s = time.monotonic() - started
    ends_at = time.monotonic() + request.budget_s
    vocabulary = int(json.loads((Path(request.model_dir) / "genai_config.json").read_text())["model"]["vocab_size"])
    longest = max(request.prompt_tokens, *request.slices)
    prompt = np.random.default_rng(1).integers(3, max(4, min(vocabulary, 30_000)), longest).astype(np.int32)

    def generator() -> Any:
        params = og.GeneratorParams(model)
        length = max(longest, WARM_TOKENS + max(KEPT_TOKENS, request.decode_tokens)) + 2
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        return og.Generator(model, params)

    warm, started = generator(), time.monotonic()
    warm.append_tokens(prompt[:WARM_TOKENS])
    slow_tps = WARM_TOKENS / (time.monotonic() - started)
    logits = np.asarray(warm.get_logits(), np.float64).reshape(-1)[-vocabulary:]
    if lie:
        logits = -logits
    for _ in range(KEPT_TOKENS):
        warm.generate_next_token()
    tokens = [int(token) for token in warm.get_sequence(0)[-KEPT_TOKENS:]]
    del warm
    voice.phase("prefill")
    rates: list[SliceRate] = []
    for slice_tokens in bearable(request.slices, slow_tps, request.budget_s, WARM_TOKENS):
        if not rates or time.monotonic() < ends_at:
            rates.append(time_prefill(generator, prompt, slice_tokens, ends_at))
    voice.phase("decode")
    started = time.monotonic()
    tps, count, cpu_s = time_decode(generator, prompt[:WARM_TOKENS], request.decode_tokens, ends_at)
    phase_s = time.monotonic() - started
    voice.phase("compare")
    return MeasureAnswer(
        load_s=load_s,
        slices=tuple(rates),
        decode_tps=tps,
        decode_tokens=count,
        cpu_s_per_token=cpu_s / max(1, count),
        decode_share=count / tps / phase_s,
        peak_bytes=peak_bytes(),
        whole=whole,
        finite=bool(np.isfinite(logits).all()),
        tokens=tuple(tokens),
        top=tuple(int(token) for token in np.argsort(-logits)[:5]),
        runtime=f"onnxruntime-genai {og.__version__}",
    )


def _load(og: Any, request: MeasureRequest) -> tuple[Any, bool]:
    """The model on the provider, and whether all of it is there. With the CPU provider that is so by definition."""
    if not request.provider.genai_name:
        return og.Model(_config(og, request, strict=False)), True
    if request.whole:
        try:
            return og.Model(_config(og, request, strict=True)), True
        except Exception as error:
            if FALLBACK_REFUSED not in str(error):
                raise
    return og.Model(_config(og, request, strict=False)), False


def _config(og: Any, request: MeasureRequest, *, strict: bool) -> Any:
    spec = request.provider
    config = og.Config(request.model_dir)
    config.clear_providers()
    if spec.genai_name:
        config.append_provider(spec.genai_name)
        for name, value in spec.options:
            config.set_provider_option(spec.genai_name, name, value)
    session: dict[str, Any] = {"session.intra_op.allow_spinning": "1" if request.spinning else "0"}
    if request.threads:
        session["intra_op_num_threads"] = request.threads
    if strict:
        session[NO_CPU[0]] = NO_CPU[1]
    config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
    return config


if __name__ == "__main__":
    leave(main)
