"""Two live providers on one box: the CPU's, and OpenVINO's on the same processor, in an environment of its own.

`tools/test-openvino` runs this. The environment (500 MB) is built once from PyPI with pip, in the folder that
EDGED_TEST_OPENVINO_VENV names, else below the user's cache. It holds the all-in-one build of onnxruntime with OpenVINO,
and onnxruntime-genai without its dependencies, which would bring the plain build back. The processes of this test run
in the ordinary environment, the children in that one.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edged.errors import HardwareError
from edged.hardware.packages import installed
from edged.hardware.provider_rules import Box
from edged.hardware.providers import ProviderReport, examine
from edged.hardware.selection import select
from edged.hardware.trial_messages import MeasureAnswer, MeasureRequest
from edged.hardware.trial_runner import Limits, Trial, run_measure, run_proof
from edged.hardware.trial_verdict import Verdict
from edged.hardware.tune import Goal
from edged.hardware.tune_table import Failure, Table, model_key, recall, record_failure, remember
from edged.hardware.tuner import Bounds, Cores, Tuned, tune

pytestmark = [
    pytest.mark.slow,
    pytest.mark.openvino,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenVINO's wheels are for x86-64 only"),
]

ROOT = Path(__file__).resolve().parents[2]
OPENVINO = "onnxruntime-openvino==1.24.1"
GENAI = "onnxruntime-genai==0.18.0"
MIB = 1 << 20
AMPLE = Limits(deadline_s=120, memory_bytes=4096 * MIB)


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the environment with OpenVINO, built if it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = Path(os.environ.get("EDGED_TEST_OPENVINO_VENV") or cache / "edged-test" / "openvino-1.24.1")
    interpreter, ready = venv / "bin/python", venv / "edged-test-ready"
    if ready.exists():
        return interpreter
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [*pip, OPENVINO, "numpy"],
        [*pip, "--no-deps", GENAI],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
        if done.returncode != 0:
            pytest.skip(f"the environment with OpenVINO cannot be built: {done.stderr.strip().splitlines()[-1:]}")
    ready.touch()
    return interpreter


@pytest.fixture(scope="module")
def reports(python: Path) -> dict[str, ProviderReport]:
    """Every candidate, tried in that environment."""
    (site,) = (python.parent.parent / "lib").glob("python*/site-packages")
    box = Box("x86_64", "this processor")
    found = examine(box, installed([str(site)]), limits=AMPLE, prove=partial(run_proof, python=str(python)))
    return {report.candidate.key: report for report in found}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "tiny"
    command = [sys.executable, str(ROOT / "tools/make_synthetic.py"), "tiny", str(out), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return out


Measure = Callable[[MeasureRequest, Limits, MeasureAnswer | None], Trial[MeasureAnswer]]


@pytest.fixture(scope="module")
def measure(python: Path) -> Measure:
    return lambda request, limits, cpu: run_measure(request, limits, cpu=cpu, python=str(python))


@pytest.fixture(scope="module")
def tuned(reports: dict[str, ProviderReport], model: Path, measure: Measure) -> Tuned:
    bounds = Bounds(total_s=240, trial_s=100)
    found = list(reports.values())
    return tune({"cpu": model}, found, Goal.LATENCY, Cores(2), memory_bytes=4096 * MIB, bounds=bounds, measure=measure)


@pytest.fixture(scope="module")
def state(tuned: Tuned, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    table = Table(model.name, model_key(model), "this box", Goal.LATENCY, 0.0, tuned.rows)
    remember(folder, table)
    return folder


def test_both_providers_are_found_in_the_one_package_and_proved(reports: dict[str, ProviderReport]) -> None:
    for key in ("cpu", "openvino-cpu"):
        assert reports[key].usable, reports[key]
        assert reports[key].found == "onnxruntime-openvino 1.24.1"


def test_what_falls_to_the_cpu_is_said(reports: dict[str, ProviderReport]) -> None:
    """OpenVINO 2025.4 leaves GroupQueryAttention to the CPU; with no part of the graph on it, it would be refused."""
    proof = reports["openvino-cpu"].proof
    assert proof is not None
    assert 0 < proof.ran_here < proof.operators == 3
    assert "GroupQueryAttention" in proof.fell_to_cpu
    assert "works in part" in reports["openvino-cpu"].summary


def test_a_device_that_is_not_there_is_refused_although_onnxruntime_would_silently_use_the_cpu(
    reports: dict[str, ProviderReport],
) -> None:
    for key, device in (("openvino-gpu", "GPU"), ("openvino-npu", "NPU")):
        if reports[key].usable:
            pytest.skip(f"this box has an Intel {device}")
        refusal = reports[key].refusal
        assert refusal is not None
        assert f"no device {device}" in refusal.reason
        with pytest.raises(HardwareError, match=key):
            select(key, list(reports.values()), None, strict=True)


def test_both_are_measured_and_the_faster_is_chosen(tuned: Tuned) -> None:
    first = {row.setting.provider: row for row in reversed(tuned.rows) if row.ok}
    assert set(first) == {"cpu", "openvino-cpu"}
    assert tuned.choice is not None
    fastest = min(
        (row for row in tuned.rows if row.ok), key=lambda row: 256 / row.slice.prefill_tps + 64 / row.decode_tps
    )
    chosen = tuned.choice.row
    cost = 256 / chosen.slice.prefill_tps + 64 / chosen.decode_tps
    assert cost <= 1.03 * (256 / fastest.slice.prefill_tps + 64 / fastest.decode_tps)
    assert first["cpu"].whole
    assert not first["openvino-cpu"].whole


def test_the_two_mean_the_same(reports: dict[str, ProviderReport], model: Path, measure: Measure) -> None:
    cpu: MeasureAnswer | None = None
    for key in ("cpu", "openvino-cpu"):
        spec = reports[key].spec
        assert spec is not None
        trial = measure(MeasureRequest(str(model), spec, decode_tokens=4), AMPLE, cpu)
        assert trial.verdict is Verdict.OK, trial
        cpu = cpu or trial.answer


def test_one_that_would_take_too_much_is_a_row_in_the_table(
    reports: dict[str, ProviderReport], model: Path, measure: Measure
) -> None:
    """The ceiling lies between what the two need."""
    peaks = {}
    for key in ("cpu", "openvino-cpu"):
        spec = reports[key].spec
        assert spec is not None
        peaks[key] = measure(MeasureRequest(str(model), spec, decode_tokens=4), AMPLE, None).peak_bytes
    ceiling = (peaks["cpu"] + peaks["openvino-cpu"]) // 2
    two = [reports["cpu"], reports["openvino-cpu"]]
    done = tune({"cpu": model}, two, Goal.LATENCY, Cores(1), memory_bytes=ceiling, measure=measure)
    by_provider = {row.setting.provider: row.verdict for row in done.rows}
    assert by_provider == {"cpu": Verdict.OK, "openvino-cpu": Verdict.OUT_OF_MEMORY}
    assert done.choice is not None
    assert done.choice.row.setting.provider == "cpu"


def test_when_the_chosen_one_fails_the_other_really_serves(
    reports: dict[str, ProviderReport], model: Path, measure: Measure, state: Path
) -> None:
    found, key = list(reports.values()), model_key(model)
    first = select("auto", found, recall(state, key, "this box"), strict=False)
    assert not first.fell
    record_failure(state, model.name, key, "this box", Failure(first.got.key, "SIGSEGV while in decode", 1.0))
    second = select("auto", found, recall(state, key, "this box"), strict=False)
    assert {first.got.key, second.got.key} == {"cpu", "openvino-cpu"}
    assert second.fell
    assert f"{first.got.key} failed while serving: SIGSEGV while in decode" in second.why
    request = MeasureRequest(str(model), second.got, second.setting.threads, second.setting.spinning, decode_tokens=8)
    trial = measure(request, AMPLE, None)
    assert trial.verdict is Verdict.OK
    assert trial.answer is not None
    assert trial.answer.decode_tokens >= 8
