"""Runs a scenario in a child process again and again, each time with one fault at one of its file system calls.

`strace` injects the fault: SIGKILL before the call, or an error in its place. A clean run is recorded first, to know
the calls that touch the scenario's folder. The scenario must make the same calls each time.
"""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

DONE, REFUSED, BROKEN = 0, 3, 4  # exit statuses of the child: went through, an error of ours or the system's, a bug
FAULTS = {"KILL": "signal=KILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}
CHILD_LIMIT_S = 30.0

# every call that a scenario can make on files; a name that this machine does not know is skipped with `?`
NAMES = """
    openat read pread64 write pwrite64 fsync fdatasync close rename renameat renameat2 unlink unlinkat mkdir mkdirat
    rmdir symlink symlinkat link linkat readlink readlinkat ftruncate chmod fchmod fchmodat stat lstat newfstatat
    statx fstat getdents64 lseek copy_file_range sendfile flock statfs fstatfs ioctl access faccessat faccessat2
    utimensat
"""
CALLS = NAMES.split()
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\(")


@dataclass(frozen=True)
class Scenario:
    """`prepare(folder)` lays out the start; `act(folder)` runs in the child; both must be deterministic.

    `judge(folder, exit_status)` says which state is on disk, or raises AssertionError when it is neither old nor new.
    `rerun(folder)` runs without a fault afterwards and raises when it cannot reach the new state.
    """

    name: str
    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    judge: Callable[[Path, int], str]
    rerun: Callable[[Path], None]


@dataclass
class Tally:
    """What came of all faults: counts by kind and state, by how the child ended, and every breach."""

    scenario: str
    calls: int = 0
    by_call: dict[str, int] = field(default_factory=dict)
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    endings: dict[str, int] = field(default_factory=dict)
    not_hit: int = 0
    breaches: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def injected(self) -> int:
        return sum(sum(states.values()) for states in self.outcomes.values())

    def to_map(self) -> dict[str, object]:
        return {**self.__dict__, "injected": self.injected}


def why_not() -> str | None:
    """The reason why no fault can be injected here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = ["strace", "-o", "/dev/null", "-e", "trace=openat", "-e", "inject=openat:error=EIO:when=9999", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=20, check=False)
    return None if done.returncode == 0 else f"strace cannot inject here: {done.stderr.strip()[:200]}"


def run(
    scenario: Scenario, kinds: list[str], *, every: int = 1, limit_s: float = 3600.0, only: frozenset[str] = frozenset()
) -> Tally:
    """Injects each kind of fault at every `every`-th call, or at those of `only`.

    Stops early after `limit_s`, which is then a breach.
    """
    started = time.monotonic()
    tally = Tally(scenario.name)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # fsync costs nothing there; the calls are the same
    with tempfile.TemporaryDirectory(prefix="edged-faults-", dir=memory) as base:
        template, folder, log = Path(base) / "start", Path(base) / "run", Path(base) / "strace.log"
        template.mkdir()
        scenario.prepare(template)
        points = [point for point in _points(scenario, template, folder, log) if not only or point[0] in only]
        tally.calls, tally.by_call = len(points), dict(collections.Counter(call for call, _ in points))
        for kind in kinds:
            counts: collections.Counter[str] = collections.Counter()
            for call, number in points[::every]:
                if time.monotonic() - started > limit_s:
                    tally.breaches.append(f"stopped after {limit_s} s")
                    break
                where = f"{kind} at {call} no. {number}"
                status = _child(scenario, template, folder, log, f"inject={call}:{FAULTS[kind]}:when={number}")
                if not _was_hit(log, status):
                    tally.not_hit += 1
                tally.endings[_ending(status)] = tally.endings.get(_ending(status), 0) + 1
                try:
                    assert status in (DONE, REFUSED, -signal.SIGKILL), f"the child ended with {status}"
                    counts[scenario.judge(folder, status)] += 1
                    scenario.rerun(folder)
                except Exception as error:
                    tally.breaches.append(f"{where}: {type(error).__name__}: {error}")
                    counts["broken"] += 1
            tally.outcomes[kind] = dict(counts)
    tally.seconds = round(time.monotonic() - started, 1)
    return tally


def _points(scenario: Scenario, template: Path, folder: Path, log: Path) -> list[tuple[str, int]]:
    """Each call of a clean run that names the folder, as (system call, how many of its kind came before, plus one)."""
    status = _child(scenario, template, folder, log, None)
    assert status == DONE, f"{scenario.name} without a fault ended with {status}"
    seen: collections.Counter[str] = collections.Counter()
    found: list[tuple[str, int]] = []
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if match is None:
            continue
        seen[match[1]] += 1
        if str(folder) in line:
            found.append((match[1], seen[match[1]]))
    return found


def _child(scenario: Scenario, template: Path, folder: Path, log: Path, inject: str | None) -> int:
    """One run of the scenario under strace on a fresh copy of the start; returns its exit status."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, symlinks=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _act(scenario, folder)
    os.waitpid(pid, os.WUNTRACED)
    calls = ",".join(f"?{call}" for call in CALLS)
    command = ["strace", "-y", "-s", "16", "-o", str(log), "-p", str(pid), "-e", f"trace={calls}", "-e", "signal=none"]
    if inject is not None:
        command += ["-e", inject]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert tracer.stderr is not None
    tracer.stderr.readline()  # "Process N attached"
    os.kill(pid, signal.SIGCONT)
    try:
        return _wait(pid)
    finally:
        tracer.stderr.close()
        tracer.wait()


def _act(scenario: Scenario, folder: Path) -> None:
    """The child: stops until the tracer is there, acts, and leaves without Python's own farewell."""
    status = BROKEN
    try:
        os.kill(os.getpid(), signal.SIGSTOP)
        scenario.act(folder)
        status = DONE
    except Exception as error:
        from edged.errors import EdgedError

        status = REFUSED if isinstance(error, (EdgedError, OSError)) else BROKEN
        if status == BROKEN:
            traceback.print_exc()
    finally:
        os._exit(status)


def _wait(pid: int) -> int:
    give_up_s = time.monotonic() + CHILD_LIMIT_S
    while time.monotonic() < give_up_s:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return BROKEN


def _was_hit(log: Path, status: int) -> bool:
    return status == -signal.SIGKILL or "(INJECTED)" in log.read_text(errors="replace")


def _ending(status: int) -> str:
    return {DONE: "done", REFUSED: "error told", -signal.SIGKILL: "killed"}.get(status, f"status {status}")


def summary(tallies: list[Tally], *, as_json: bool) -> int:
    """Prints what was found; the exit status: 0 when nothing was broken."""
    if as_json:
        print(json.dumps([tally.to_map() for tally in tallies], indent=1))
    else:
        for tally in tallies:
            print(f"{tally.scenario}: {tally.injected} faults at {tally.calls} calls in {tally.seconds} s")
            for kind, states in tally.outcomes.items():
                print(f"  {kind:7} " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))
            for breach in tally.breaches[:20]:
                print(f"  BROKEN {breach}")
    return 1 if any(tally.breaches or not tally.injected for tally in tallies) else 0


def chosen(kinds: str) -> Iterator[str]:
    """The kinds named in a comma-separated list."""
    for kind in kinds.split(","):
        if kind not in FAULTS:
            sys.exit(f"{kind!r} is no fault; choose of {', '.join(FAULTS)}")
        yield kind
