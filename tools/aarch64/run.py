"""tools/test-aarch64: build or refresh the emulated userland, run the main job and the tests, compare, say how long."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from aarch64 import userland  # noqa: E402
from aarch64.board import PI4, PI5, SLOWNESS, Board, run  # noqa: E402

T = TypeVar("T")
DEFAULT_CACHE = Path("/var/cache/edged-aarch64")
TEST_S = 420  # pyproject.toml's limit of one test, natively


def main() -> int:
    options = _options()
    clock = Clock(options.minutes * 60)
    root = clock.step("userland", lambda: userland.make_base(options.cache))
    is_ours = userland.register()
    try:
        clock.step("edged installed", lambda: _install(root, options.cache))
        userland.copy_tests(root, ROOT)
        return _all(options, root, clock)
    finally:
        if is_ours:
            userland.unregister()
        print(clock.table())


def _all(options: argparse.Namespace, root: Path, clock: Clock) -> int:
    native = clock.step("main job, this machine", lambda: _native_job(options.cache))
    boards = [board for board, key in ((PI4, "pi4"), (PI5, "pi5")) if options.board in (key, "all")]
    failures = 0
    for board in boards:
        emulated = clock.step(f"main job, {board.name}", lambda board=board: _job(root, board, clock))
        failures += emulated is None or not _same(native, emulated, board)
    if PI5 in boards and not options.job_only:
        failures += clock.step(f"tests, {PI5.name}", lambda: _tests(root, clock, options.arguments)) != 0
    print("failed" if failures else "passed", flush=True)
    return 1 if failures else 0


def _install(root: Path, cache: Path) -> None:
    """edged from its wheel, and everything else from aarch64 wheels."""
    wheels = userland.gather_wheels(cache, ROOT)
    if not (root / userland.VENV / "bin/python").exists():
        (root / "src").mkdir(exist_ok=True)
        steps = ["python3", "-m", "venv", "--without-pip", f"/{userland.VENV}"]
        if (status := run(root, PI5, ROOT / "tests/data/boards", steps, timeout_s=1800)) != 0:
            sys.exit(f"no virtual environment could be made in the userland (exit status {status})")
    userland.install_wheels(root, wheels, (cache / "wheels.stamp").read_text())


def _native_job(cache: Path) -> dict[str, Any]:
    out = cache / "job-native.json"
    subprocess.run([sys.executable, "tools/aarch64/job.py", str(out)], cwd=ROOT, check=True)
    return json.loads(out.read_text())


def _job(root: Path, board: Board, clock: Clock) -> dict[str, Any] | None:
    """What the main job wrote there; None when it failed."""
    out = root / "var/cache/job.json"
    out.unlink(missing_ok=True)
    command = ["/opt/edged/bin/python", "tools/aarch64/job.py", "/var/cache/job.json"]
    status = run(root, board, ROOT / "tests/data/boards", command, timeout_s=clock.left_s())
    if status != 0:
        print(f"{board.name}: the main job ended with {status}")
        return None
    return json.loads(out.read_text())


def _same(native: dict[str, Any], emulated: dict[str, Any], board: Board) -> bool:
    """Token by token; the log-probabilities may differ in what rounding does."""
    pairs = list(zip(native["answers"], emulated["answers"], strict=True))
    apart = [
        abs(one[1] - other[1])
        for here, there in pairs
        for one, other in zip(here["tokens"], there["tokens"], strict=False)
    ]
    tokens = sum(len(here["tokens"]) for here, _ in pairs)
    other = [
        here["asked"]
        for here, there in pairs
        if [step[0] for step in here["tokens"]] != [step[0] for step in there["tokens"]]
        or here["text"] != there["text"]
    ]
    slower = emulated["took_s"] / max(native["took_s"], 0.1)
    print(
        f"{board.name} ({emulated['machine']}, {emulated['provider']}): {len(pairs) - len(other)} of {len(pairs)} "
        f"answers ({tokens} tokens) token for token as on {native['machine']}; log-probabilities apart by at most "
        f"{max(apart, default=0):.4f}; loaded in {emulated['loaded_s']} s, {slower:.0f} times slower in all"
    )
    for asked in other:
        print(f"  another answer to: {asked}")
    return not other and emulated["machine"] == "aarch64"


def _tests(root: Path, clock: Clock, arguments: list[str]) -> int:
    command = ["/opt/edged/bin/python", "-m", "pytest", "-m", "aarch64", "-p", "no:cacheprovider", "--durations=15"]
    command += [f"--timeout={TEST_S * SLOWNESS}", "-q", *(arguments or _marked())]
    return run(root, PI5, ROOT / "tests/data/boards", command, timeout_s=clock.left_s())


def _marked() -> list[str]:
    """Only the files that hold marked tests: reading all of them takes minutes there."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [path.relative_to(ROOT).as_posix() for path in files if "pytest.mark.aarch64" in path.read_text()]


class Clock:
    """How long each step took, and how much is left of the whole."""

    def __init__(self, total_s: float) -> None:
        self._end_s = time.monotonic() + total_s
        self._rows: list[tuple[str, float]] = []

    def left_s(self) -> float:
        return max(1.0, self._end_s - time.monotonic())

    def step(self, name: str, work: Callable[[], T]) -> T:
        print(f"{name} …", flush=True)
        started_s = time.monotonic()
        try:
            return work()
        finally:
            self._rows.append((name, time.monotonic() - started_s))

    def table(self) -> str:
        rows = [*self._rows, ("together", sum(took for _, took in self._rows))]
        return "\n".join(f"{took / 60:7.1f} min  {name}" for name, took in rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tools/test-aarch64")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("EDGED_AARCH64_CACHE") or DEFAULT_CACHE))
    parser.add_argument("--board", choices=["pi5", "pi4", "all"], default="all")
    parser.add_argument("--job-only", action="store_true", help="not the tests")
    parser.add_argument("--minutes", type=float, default=90.0, help="for all of it")
    parser.add_argument("arguments", nargs="*", help="for pytest")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
