"""A provider is run in a child that really crashes, hangs, lies and hoards; the parent says which, and outlives it."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.hardware.trial_messages import (
    CPU,
    MeasureAnswer,
    MeasureRequest,
    ProofAnswer,
    ProofRequest,
    ProviderSpec,
    to_json,
)
from edged.hardware.trial_runner import TAIL_BYTES, Limits, Trial, run_measure, run_proof
from edged.hardware.trial_timing import bearable, time_decode
from edged.hardware.trial_verdict import Ended, LastWords, Verdict, classify
from tests.integration.raw import SLOWNESS

pytestmark = pytest.mark.aarch64

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
LIMITS = Limits(deadline_s=60, memory_bytes=2048 * MIB, keep_free_bytes=MIB)
AZURE = ProviderSpec("azure", "AzureExecutionProvider")
"""In every stock wheel, and takes none of these operators: what a silent fall to the CPU looks like."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "tiny"
    command = [sys.executable, str(ROOT / "tools/make_synthetic.py"), "tiny", str(out), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return out


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_DEBUG_FAULTS", "1")


def proof(provider: ProviderSpec = CPU, limits: Limits = LIMITS, fault: str = "") -> Trial[ProofAnswer]:
    return run_proof(ProofRequest(provider), limits, fault=fault)


def test_the_cpu_gives_the_answers_that_were_computed_without_any_runtime() -> None:
    trial = proof()
    assert trial.verdict is Verdict.OK, trial
    assert trial.answer is not None
    assert trial.answer.error < 1e-4 < trial.answer.scale
    assert {ep for ep, _, _ in trial.answer.placed} == {CPU.ort_name}
    assert {op for _, op, _ in trial.answer.placed} == {"MatMulNBits", "GroupQueryAttention"}


def test_half_precision_is_within_tolerance_too() -> None:
    trial = proof(ProviderSpec(CPU.key, CPU.ort_name, dtype="fp16"))
    assert trial.verdict is Verdict.OK, trial
    assert trial.answer is not None
    assert 1e-6 < trial.answer.error < 0.01 * trial.answer.scale


@pytest.mark.skipif(platform.machine() != "x86_64", reason="made on x86-64: another libm rounds other random numbers")
def test_the_graph_in_the_package_is_what_its_tool_makes() -> None:
    tool = ROOT / "tools/make_proof_graph.py"
    done = subprocess.run([sys.executable, str(tool), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_provider_that_leaves_everything_to_the_cpu_is_refused_and_not_believed() -> None:
    trial = proof(AZURE)
    assert trial.verdict is Verdict.REFUSED
    assert "took none of the graph's operators" in trial.reason
    assert trial.answer is not None
    assert not trial.answer.strict, "session.disable_cpu_ep_fallback must have been refused"


def test_a_provider_that_is_not_in_this_build_is_refused_with_its_name() -> None:
    trial = proof(ProviderSpec("vitis", "VitisAIExecutionProvider"))
    assert (trial.verdict, trial.answer) == (Verdict.REFUSED, None)
    assert "VitisAIExecutionProvider" in trial.reason


@pytest.mark.usefixtures("faults")
def test_a_crash_is_named_by_its_signal() -> None:
    trial = proof(fault="crash")
    assert trial.verdict is Verdict.CRASHED
    assert "SIGSEGV" in trial.reason


@pytest.mark.usefixtures("faults")
def test_a_hang_ends_at_the_deadline_even_if_it_ignores_sigterm() -> None:
    trial = proof(limits=Limits(2, 2048 * MIB, MIB), fault="hang")
    assert trial.verdict is Verdict.HUNG
    assert "2 s" in trial.reason


@pytest.mark.usefixtures("faults")
def test_wrong_numbers_are_caught() -> None:
    trial = proof(fault="lie")
    assert trial.verdict is Verdict.WRONG_ANSWER
    assert "off by" in trial.reason


@pytest.mark.usefixtures("faults")
def test_hoarding_ends_at_the_ceiling() -> None:
    trial = proof(limits=Limits(60, 200 * MIB, MIB), fault="hoard")
    assert trial.verdict is Verdict.OUT_OF_MEMORY
    assert 200 * MIB < trial.peak_bytes < 2048 * MIB


@pytest.mark.usefixtures("faults")
def test_hoarding_ends_before_the_box_has_nothing_left() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    trial = proof(limits=Limits(60, 2 * total, keep_free_bytes=2 * total), fault="hoard")
    assert trial.verdict is Verdict.OUT_OF_MEMORY
    assert "left the box without memory" in trial.reason


@pytest.mark.skipif(SLOWNESS > 1, reason="an emulator holds no process to RLIMIT_DATA")
@pytest.mark.usefixtures("faults")
def test_an_allocation_the_kernel_refuses_is_out_of_memory_not_a_crash() -> None:
    """The hard ceiling behind the watched one: here the watched one is out of reach."""
    command = [sys.executable, "-P", "-m", "edged.hardware.trial", "proof", "--fd", "1", "--parent", str(os.getpid())]
    done = subprocess.run(
        [*command, "--data-bytes", str(300 * MIB), "--fault", "hoard", "{}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (0, '{"refused": "MemoryError"}\n')
    assert classify(words(status=0, refusal="MemoryError"))[0] is Verdict.OUT_OF_MEMORY


@pytest.mark.usefixtures("faults")
def test_leaving_without_an_answer_is_a_crash() -> None:
    trial = proof(fault="leave")
    assert trial.verdict is Verdict.CRASHED
    assert "status 3" in trial.reason


@pytest.mark.usefixtures("faults")
def test_native_chatter_neither_blocks_the_child_nor_fills_the_parent() -> None:
    trial = proof(fault="chatter")
    assert trial.verdict is Verdict.OK
    assert 0 < len(trial.output_tail) <= TAIL_BYTES


@pytest.mark.usefixtures("faults")
def test_what_the_child_started_ends_with_it() -> None:
    trial = proof(fault="spawn")
    assert trial.verdict is Verdict.CRASHED
    grandchild = int(trial.output_tail.split("grandchild ")[1].split()[0])  # an emulator adds words of its own
    wait_until(lambda: gone(grandchild))


def test_faults_need_the_debug_variable() -> None:
    assert proof(fault="crash").verdict is Verdict.OK


@pytest.mark.usefixtures("faults")
def test_the_child_dies_with_its_parent_and_runs_without_telemetry() -> None:
    code = (
        "from edged.hardware.trial_runner import *; from edged.hardware.trial_messages import *;"
        f"run_proof(ProofRequest(CPU), Limits(300, {2048 * MIB}), fault='hang')"
    )
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    parent = subprocess.Popen([sys.executable, "-c", code], env={**env, "PYTHONPATH": str(ROOT)})
    try:
        wait_until(lambda: any(sleeping(pid) for pid in children(parent.pid)))
        (child,) = children(parent.pid)
        assert b"ORT_DISABLE_TELEMETRY=1" in Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        assert os.readlink(f"/proc/{child}/fd/0") == "/dev/null"
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: gone(child))


def test_a_model_is_measured(tiny: Path) -> None:
    request = MeasureRequest(str(tiny), CPU, threads=1, spinning=False, slices=(16, 64), decode_tokens=8)
    trial = run_measure(request, LIMITS)
    assert trial.verdict is Verdict.OK, trial
    answer = trial.answer
    assert answer is not None
    assert [rate.slice_tokens for rate in answer.slices] == [16, 64]
    assert all(rate.prefill_tps > 0 and rate.longest_s > 0 for rate in answer.slices)
    assert answer.decode_tokens >= 8
    assert answer.decode_tps > 0 < answer.cpu_s_per_token
    assert 0 < answer.decode_share <= 1
    assert answer.whole
    assert len(answer.top) == 5
    assert 10 * MIB < answer.peak_bytes <= trial.peak_bytes


class CountedGenerator:
    """Stands where a generator stands; counts what is asked of it."""

    def __init__(self) -> None:
        self.read, self.made = 0, 0

    def append_tokens(self, tokens: list[int]) -> None:
        self.read += len(tokens)

    def generate_next_token(self) -> None:
        self.made += 1
        time.sleep(0.02)

    def is_done(self) -> bool:
        return False


def test_the_token_that_the_prompt_has_already_paid_for_is_not_counted_as_decoded() -> None:
    made: list[CountedGenerator] = []

    def generator() -> CountedGenerator:
        made.append(CountedGenerator())
        return made[-1]

    tps, tokens, _ = time_decode(generator, [1, 2, 3], tokens=4, ends_at=time.monotonic() + 60)
    assert tokens == sum(one.made - 1 for one in made) == 4 * len(made)
    assert 0 < tps < 50


def test_a_box_out_of_time_still_decodes_one_token() -> None:
    assert time_decode(CountedGenerator, [1], tokens=4, ends_at=0.0)[1] == 1


def test_a_slow_box_is_not_asked_for_a_slice_it_cannot_bear() -> None:
    assert bearable((16, 32, 128, 256), tps=10.0, budget_s=12.0, least=16) == [16, 32]
    assert bearable((64,), tps=1.0, budget_s=12.0, least=16) == [16]


def test_energy_is_read_at_both_ends_of_the_timed_decode(tiny: Path) -> None:
    readings = iter([100.0, 107.5])
    trial = run_measure(MeasureRequest(str(tiny), CPU, decode_tokens=4), LIMITS, energy_j=lambda: next(readings))
    assert trial.energy_j == 7.5


@pytest.mark.usefixtures("faults")
def test_a_provider_that_means_something_else_than_the_cpu_is_caught_on_the_model(tiny: Path) -> None:
    request = MeasureRequest(str(tiny), CPU, decode_tokens=4)
    honest = run_measure(request, LIMITS)
    assert run_measure(request, LIMITS, cpu=honest.answer).verdict is Verdict.OK
    assert run_measure(request, LIMITS, cpu=honest.answer, fault="lie").verdict is Verdict.WRONG_ANSWER


def test_a_model_that_needs_more_than_the_ceiling_is_a_verdict_not_an_oom(tiny: Path) -> None:
    trial = run_measure(MeasureRequest(str(tiny), CPU), Limits(60, 20 * MIB, MIB))
    assert trial.verdict is Verdict.OUT_OF_MEMORY
    assert "ceiling is 20 MiB" in trial.reason


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    trial = run_measure(MeasureRequest(str(tmp_path / "none"), CPU), LIMITS)
    assert trial.verdict is Verdict.REFUSED
    assert trial.reason


def test_messages_survive_the_wire(tiny: Path) -> None:
    request = MeasureRequest(str(tiny), ProviderSpec("a", "B", "C", (("device_type", "CPU"),)), cores=(0, 1))
    assert MeasureRequest.from_json(to_json(request)) == request
    answer = MeasureAnswer(1.0, (), 2.0, 3, 0.1, 0.9, 5, True, True, (1,), (2,), "r")
    assert MeasureAnswer.from_dict(json.loads(to_json(answer))) == answer


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"status": -signal.SIGILL}, Verdict.CRASHED),
        ({"status": -signal.SIGKILL}, Verdict.CRASHED),
        ({"status": -signal.SIGKILL, "kernel_oom": True}, Verdict.OUT_OF_MEMORY),
        ({"status": -signal.SIGABRT, "output_tail": "what():  std::bad_alloc\n"}, Verdict.OUT_OF_MEMORY),
        ({"status": -signal.SIGABRT, "output_tail": "what():  no such device\n"}, Verdict.CRASHED),
        ({"status": -signal.SIGKILL, "ended": Ended.DEADLINE}, Verdict.HUNG),
        ({"status": -signal.SIGKILL, "ended": Ended.CEILING}, Verdict.OUT_OF_MEMORY),
        ({"status": -signal.SIGSEGV, "answered": True}, Verdict.OK),
        ({"status": 0, "refusal": "no device"}, Verdict.REFUSED),
        (
            {"status": 0, "refusal": "RuntimeError: Failed to allocate memory for requested buffer"},
            Verdict.OUT_OF_MEMORY,
        ),
        ({"status": 1}, Verdict.CRASHED),
        ({"status": 0}, Verdict.CRASHED),
    ],
)
def test_last_words_are_understood(case: dict[str, object], expected: Verdict) -> None:
    verdict, reason = classify(words(**case))
    assert verdict is expected
    assert bool(reason) is (verdict is not Verdict.OK)


def words(**case: object) -> LastWords:
    usual: dict[str, object] = {
        "status": 0,
        "phase": "load",
        "ended": Ended.ITSELF,
        "answered": False,
        "refusal": "",
        "output_tail": "",
        "kernel_oom": False,
        "deadline_s": 10.0,
        "ceiling_bytes": 100 * MIB,
        "peak_bytes": 50 * MIB,
    }
    return LastWords(**{**usual, **case})  # type: ignore[arg-type]


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found


def sleeping(pid: int) -> bool:
    """In the fault's endless sleep, which comes after it has tied itself to its parent."""
    status = Path(f"/proc/{pid}/status").read_text()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:")).split()[1]
    return bool(int(ignored, 16) & 1 << signal.SIGTERM - 1)


def gone(pid: int) -> bool:
    """Ended; a corpse nobody has collected counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition: Callable[[], object], limit_s: float = 30.0) -> None:
    ends_at = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.02)
