"""A whole update as a scenario for faults: metadata, trust, download, staging, check, activation, from a folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from strace_faults import DONE, Scenario

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit" / "update"))

from signing import Device, Publisher  # noqa: E402  (the folder is made known above)

from edged.store.slots import Slots  # noqa: E402
from edged.update.errors import UpdateError  # noqa: E402
from edged.update.floors import FloorStore  # noqa: E402
from edged.update.report import read_report  # noqa: E402
from edged.update.settings import UpdateSettings  # noqa: E402
from edged.update.staged import check_staged  # noqa: E402
from edged.update.updater import run  # noqa: E402


def make_models(base: Path, count: int = 2) -> list[Path]:
    """Small models that differ in their weights."""
    made = []
    for seed in range(1, count + 1):
        tool = ROOT / "tools" / "make_synthetic.py"
        command = [sys.executable, str(tool), "tiny", str(base / str(seed)), "--quiet", "--layers", "1"]
        subprocess.run([*command, "--seed", str(seed)], check=True, capture_output=True, timeout=120)
        made.append(base / str(seed))
    return made


def settings(folder: Path) -> UpdateSettings:
    return UpdateSettings(
        action="apply",
        state_dir=folder / "state",
        source=str(folder / "repository"),
        root_file=folder / "root.json",
        model="nano",
        device_id="device-1",
        edged="1.0",
        architecture="x86_64",
        reserve_bytes=0,
        attempts=1,
    )


def prepare(folder: Path) -> None:
    """A device that runs release 1; release 2 is published."""
    models = make_models(folder / "models")
    publisher = Publisher(folder / "repository")
    publisher.release(models[0], "1.0", 1)
    device = Device(folder, publisher)
    device.take()
    publisher.release(models[1], "2.0", 2)
    shutil.rmtree(folder / "models")


def act(folder: Path) -> None:
    """What updater and daemon do on the disk, one after the other."""
    report = run(settings(folder))
    if report.phase not in ("staged", "up_to_date"):  # failed, or waits: a hold switch that cannot be read is set
        raise UpdateError(report.message)
    if report.phase == "staged":
        slots = Slots(folder / "state", "nano")
        slots.recover()
        bundle = check_staged(slots, report.version)
        slots.activate(report.version, bundle.release)
        slots.commit(report.version)


def judge(folder: Path, status: int) -> str:
    """Old or new, whole; the status file and the floors are readable."""
    slots = Slots(folder / "state", "nano")
    before = slots.active
    slots.recover()
    active = slots.active
    assert active in ("1.0", "2.0"), f"active is {active}"
    assert before == active, "the repair changed what was active"
    for version in slots.versions():
        check_staged(slots, version)
    assert status != DONE or active == "2.0", "said done, but the old version is active"
    floors = FloorStore(folder / "state" / "update", folder / "state" / "models" / ".floors")
    assert floors.read().roles["timestamp"].version >= 2, "the floors went down"
    assert read_report(folder / "state" / "update").phase != "never", "the status is lost"
    return "old" if active == "1.0" else "new"


def rerun(folder: Path) -> None:
    act(folder)
    assert judge(folder, DONE) == "new"


SCENARIOS = [Scenario("whole update", prepare, act, judge, rerun)]
