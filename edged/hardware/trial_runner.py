"""Parent side of a trial: starts the child, watches clock and memory, and says how it ended.

A provider's native code may crash, hang, lie or take the whole box; whatever it does, it does to a child that has no
stdin, no say over this process and no life beyond it. Blocks its caller for at most the deadline plus a second; the
child's life is tied to the thread that called.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from edged.hardware.files import read_text
from edged.hardware.memory import process_rss, read_memory
from edged.hardware.trial_messages import MeasureAnswer, MeasureRequest, ProofAnswer, ProofRequest, to_json
from edged.hardware.trial_verdict import Ended, LastWords, Verdict, classify, judge_measure, judge_proof

POLL_S = 0.04
"""How often the child's memory is looked at: it can overshoot the ceiling by what it touches in this time."""

BOX_POLL_S = 0.25
"""How often the whole box's memory is: that walks control groups, ten times the cost."""

TAIL_BYTES = 8192
"""How much of the child's chatter is kept."""

ANSWER_BYTES = 1 << 20
"""The most the child may say on its private descriptor."""

_PACKAGE_ROOT = str(Path(__file__).resolve().parent.parent.parent)

Answer = TypeVar("Answer", ProofAnswer, MeasureAnswer)
EnergyReader = Callable[[], float | None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a trial may take: `memory_bytes` resident, and only while the box keeps `keep_free_bytes` available."""

    deadline_s: float
    memory_bytes: int
    keep_free_bytes: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Trial(Generic[Answer]):
    """How a trial ended. `answer` is None unless the child gave one (a wrong answer is kept for the table).

    `energy_j` is what the whole box used during the timed decode, None without a meter.
    """

    verdict: Verdict
    reason: str
    phase: str
    answer: Answer | None
    peak_bytes: int
    wall_s: float
    output_tail: str
    energy_j: float | None = None


def run_proof(
    request: ProofRequest, limits: Limits, *, python: str = sys.executable, fault: str = ""
) -> Trial[ProofAnswer]:
    """Run the tiny graph on a provider and judge its numbers. `fault` is for tests and needs EDGED_DEBUG_FAULTS=1."""
    trial = _run("proof", to_json(request), ProofAnswer.from_dict, limits, python, fault, None)
    if trial.answer is None:
        return trial
    verdict, reason = judge_proof(trial.answer, request.provider.ort_name)
    return replace(trial, verdict=verdict, reason=reason)


def run_measure(
    request: MeasureRequest,
    limits: Limits,
    *,
    cpu: MeasureAnswer | None = None,
    energy_j: EnergyReader | None = None,
    python: str = sys.executable,
    fault: str = "",
) -> Trial[MeasureAnswer]:
    """Time a model on a provider; `cpu` is the CPU provider's answer for the same model, to judge this one by."""
    trial = _run("measure", to_json(request), MeasureAnswer.from_dict, limits, python, fault, energy_j)
    if trial.answer is None:
        return trial
    verdict, reason = judge_measure(trial.answer, cpu)
    peak = max(trial.peak_bytes, trial.answer.peak_bytes)
    return replace(trial, verdict=verdict, reason=reason, peak_bytes=peak)


class _Child:
    """The process and its two pipes; owner of both. Leaving the context kills the whole process group."""

    def __init__(self, mode: str, request: str, limits: Limits, python: str, fault: str) -> None:
        self.answers, theirs = os.pipe()
        command = [python, "-P", "-m", "edged.hardware.trial", mode, "--fd", str(theirs), "--parent", str(os.getpid())]
        command += [
            "--data-bytes",
            str(2 * limits.memory_bytes + (1 << 30)),
            *(["--fault", fault] if fault else []),
            request,
        ]
        path = os.pathsep.join(filter(None, [_PACKAGE_ROOT, os.environ.get("PYTHONPATH")]))
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": path},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self.answers)
            raise
        finally:
            os.close(theirs)
        assert self.process.stdout is not None
        self.chatter = self.process.stdout.fileno()
        for pipe in (self.answers, self.chatter):
            os.set_blocking(pipe, False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.process.wait()
        os.close(self.answers)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        """End the child and everything it started. Safe to repeat: a group that is gone is no error."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class _Ears:
    """Collects what the child says: phases, answer, refusal, and the last of its chatter."""

    def __init__(self, energy_j: EnergyReader | None) -> None:
        self.phase = "start"
        self.answer: Mapping[str, Any] | None = None
        self.refusal = ""
        self.tail = b""
        self.energy: float | None = None
        self._energy_j = energy_j
        self._energy_start: float | None = None
        self._line = b""
        self._heard = 0

    def chatter(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-TAIL_BYTES:]

    def said(self, data: bytes) -> None:
        """Bytes from the private descriptor; past the ceiling, or not JSON, they are taken as a broken child's."""
        self._heard += len(data)
        if self._heard > ANSWER_BYTES:
            return
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                continue
            if isinstance(message, dict):
                self._hear(message)

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "phase" in message:
            self._meter(str(message["phase"]))
            self.phase = str(message["phase"])
        elif "refused" in message:
            self.refusal = str(message["refused"]) or "refused without a reason"
        elif isinstance(message.get("answer"), dict):
            self.answer = message["answer"]

    def _meter(self, phase: str) -> None:
        """Energy from the announcement of the timed decode to that of what follows."""
        if self._energy_j is None:
            return
        if phase == "decode":
            self._energy_start = self._energy_j()
        elif self.phase == "decode" and self._energy_start is not None and (now := self._energy_j()) is not None:
            self.energy = now - self._energy_start


def _run(
    mode: str,
    request: str,
    parse: Callable[[Mapping[str, Any]], Answer],
    limits: Limits,
    python: str,
    fault: str,
    energy_j: EnergyReader | None,
) -> Trial[Answer]:
    started, ooms = time.monotonic(), _kernel_ooms()
    ears = _Ears(energy_j)
    with _Child(mode, request, limits, python, fault) as child:
        ended, peak = _watch(child, ears, limits, started)
        status = child.process.wait()
    answer = None
    if ears.answer is not None:
        with contextlib.suppress(KeyError, TypeError, ValueError):  # a child too broken to speak has not answered
            answer = parse(ears.answer)
    tail = ears.tail.decode("utf-8", "replace")
    words = LastWords(
        status=status,
        phase=ears.phase,
        ended=ended,
        answered=answer is not None,
        refusal=ears.refusal,
        output_tail=tail,
        kernel_oom=_kernel_ooms() > ooms,
        deadline_s=limits.deadline_s,
        ceiling_bytes=limits.memory_bytes,
        peak_bytes=peak,
    )
    verdict, reason = classify(words)
    return Trial(verdict, reason, ears.phase, answer, peak, time.monotonic() - started, tail, ears.energy)


def _watch(child: _Child, ears: _Ears, limits: Limits, started: float) -> tuple[Ended, int]:
    """Listen until the child is gone or has to go; returns who ended it and the most memory it was seen with."""
    peak, box_at_s = 0, started
    ended = Ended.ITSELF
    exit_fd = os.pidfd_open(child.process.pid)
    with selectors.DefaultSelector() as selector:
        selector.register(child.answers, selectors.EVENT_READ, ears.said)
        selector.register(child.chatter, selectors.EVENT_READ, ears.chatter)
        selector.register(exit_fd, selectors.EVENT_READ, None)
        try:
            gone = False
            while not gone:
                for key, _ in selector.select(POLL_S):
                    if key.data is None:
                        gone = True
                    elif not _drain(key.fd, key.data, chunks=1):
                        selector.unregister(key.fd)
                rss, now_s = process_rss(child.process.pid), time.monotonic()
                peak = max(peak, rss.rss_bytes if rss else 0)
                look_at_box = now_s - box_at_s > BOX_POLL_S
                box_at_s = now_s if look_at_box else box_at_s
                ended = Ended.ITSELF if gone else _over(limits, peak, now_s - started, look_at_box=look_at_box)
                if ended is not Ended.ITSELF:
                    child.kill()
                    gone = True
        finally:
            os.close(exit_fd)
    for pipe, sink in ((child.answers, ears.said), (child.chatter, ears.chatter)):
        _drain(pipe, sink, chunks=64)
    return ended, peak


def _over(limits: Limits, peak_bytes: int, age_s: float, *, look_at_box: bool) -> Ended:
    if age_s > limits.deadline_s:
        return Ended.DEADLINE
    if peak_bytes > limits.memory_bytes:
        return Ended.CEILING
    if look_at_box and read_memory().headroom_bytes < limits.keep_free_bytes:
        return Ended.BOX
    return Ended.ITSELF


def _drain(pipe: int, sink: Callable[[bytes], None], chunks: int) -> bool:
    """Read what is there, at most `chunks` times 64 KiB; False once the other side has closed."""
    for _ in range(chunks):
        try:
            data = os.read(pipe, 1 << 16)
        except BlockingIOError:
            return True
        if not data:
            return False
        sink(data)
    return True


def _kernel_ooms() -> int:
    """The kernel's count of out-of-memory kills; 0 where it keeps none."""
    for line in (read_text(Path("/proc/vmstat")) or "").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0
