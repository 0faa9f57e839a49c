"""`tests/system/run`: builds the package unless one is given, boots a machine, tells the story, one line a step."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from box import Box
from machine import Machine, base_system
from story import SHORT, STEPS

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/system/run", description=__doc__)
    parser.add_argument("--deb", type=Path, help="the package to test; default: one built now")
    parser.add_argument("--suite", default="bookworm", help="Debian release; the package must be built for it")
    parser.add_argument("--short", action="store_true", help="only the steps that a change breaks most likely")
    parser.add_argument("--keep", action="store_true", help="leave the machine's disk and its console log for a look")
    parser.add_argument("--without", action="append", default=[], help="leave out the step of that name")
    options = parser.parse_args()
    cache = Path(os.environ.get("EDGED_SYSTEM_CACHE") or "/var/cache/edged-system-test")
    work = Path(tempfile.mkdtemp(prefix="edged-system-", dir=os.environ.get("EDGED_SYSTEM_WORK")))
    try:
        try:
            base = base_system(cache, options.suite)
        except subprocess.CalledProcessError:
            print(
                "tests/system: skipped: no Debian could be fetched (debootstrap failed); EDGED_DEBIAN_MIRROR names one"
            )
            return 0
        package = options.deb or _build(work)
        machine = Machine(base, work / "root", work / "console.log")
        steps = [step for step in (SHORT if options.short else STEPS) if step.__name__ not in options.without]
        publisher = Path(os.environ.get("EDGED_VENV") or ROOT / ".venv") / "bin/python"
        box = Box(machine, package, package if options.short else _newer(package, work), publisher)
        try:
            print(f"booted in {machine.boot():.0f} s", flush=True)
            return _tell(box, steps)
        finally:
            machine.power_off()
    finally:
        if options.keep:
            print(f"kept: {work}")
        else:
            shutil.rmtree(work, ignore_errors=True)


def _tell(box: Box, steps: list) -> int:  # type: ignore[type-arg]
    """Run the steps in order; the first that fails ends the story."""
    for number, step in enumerate(steps, 1):
        name, started_s = step.__name__.replace("_", " "), time.monotonic()
        try:
            said = step(box)
        except (AssertionError, RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            print(f"{number:2} FAIL {name} ({time.monotonic() - started_s:.0f} s)\n{type(error).__name__}: {error}")
            print(box.journal(40))
            return 1
        print(f"{number:2} ok   {name} ({time.monotonic() - started_s:.0f} s): {said}", flush=True)
    print(f"all {len(steps)} steps hold")
    return 0


def _build(work: Path) -> Path:
    environment = {**os.environ, "EDGED_DEB_COMPRESSION": "none"}
    built = subprocess.run(
        [ROOT / "tools/build_deb", work / "deb"], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return Path(built.stdout.split()[-1])


def _newer(package: Path, work: Path) -> Path:
    """The same package under a higher version: what an upgrade does to state and service is then seen alone."""
    tree, newer = work / "newer", work / "edged_9999.deb"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text("".join("Version: 9999\n" if line.startswith("Version:") else f"{line}\n" for line in lines))
    subprocess.run(["dpkg-deb", "-Znone", "--build", tree, newer], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return newer


if __name__ == "__main__":
    sys.exit(main())
