"""What the store does with versions, as scenarios for faults: take a new one, go back, sweep."""

from __future__ import annotations

import shutil
from pathlib import Path

from strace_faults import DONE, Scenario

from edged.store.digests import FileDigest, check_files, hash_file
from edged.store.journal import refused
from edged.store.slots import Slots

FILES = {
    "model.onnx": b"graph",
    "model.onnx.data": bytes(range(256)) * 300,
    "tokenizer.json": b"{}",
    "sub/a.json": b"[]",
}


def at_rest() -> float:
    return 1_700_000_000.0


def slots(folder: Path) -> Slots:
    return Slots(folder / "state", "nano", at_rest)


def write_version(folder: Path, version: str) -> dict[str, FileDigest]:
    """Files that differ between versions, but for the tokenizer."""
    wanted = {}
    for name, data in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if name == "tokenizer.json" else data + version.encode())
        wanted[name] = hash_file(path)
    return wanted


def wanted(folder: Path, version: str) -> dict[str, FileDigest]:
    source = folder / "source" / version
    return {name: hash_file(source / name) for name in FILES}


def put(folder: Path, version: str) -> None:
    """Stage and activate, as often as need be."""
    store = slots(folder)
    aside = store.staging(version)
    shutil.copytree(folder / "source" / version, aside, dirs_exist_ok=True, copy_function=shutil.copyfile)
    store.stage(version, wanted(folder, version))
    store.activate(version)
    store.commit(version)


def start_with(*versions: str) -> object:
    def prepare(folder: Path) -> None:
        for version in ("1.0", "2.0", "3.0"):
            write_version(folder / "source" / version, version)
        for version in versions:
            put(folder, version)

    return prepare


def state_of(folder: Path, old: str, new: str) -> str:
    """`old` or `new`, after the start-up repair; everything that can be run must be whole."""
    store = slots(folder)
    before = store.active
    store.recover()
    active = store.active
    assert active in (old, new), f"active is {active}"
    assert before in (None, active), "the repair changed what was active"
    for version in store.versions():
        check_files(store.path(version), wanted(folder, version))
    assert store.previous != active, "previous is the active version"
    return "old" if active == old else "new"


def _take(folder: Path) -> None:
    store = slots(folder)
    store.recover()
    put(folder, "2.0")


def _judge_take(folder: Path, status: int) -> str:
    state = state_of(folder, "1.0", "2.0")
    assert status != DONE or state == "new", "said done, but the old version is active"
    if state == "new":
        assert slots(folder).previous == "1.0", f"previous is {slots(folder).previous}"
    return state


def _rerun_take(folder: Path) -> None:
    _take(folder)
    assert state_of(folder, "1.0", "2.0") == "new"
    assert slots(folder).previous == "1.0"


def _back(folder: Path) -> None:
    store = slots(folder)
    store.recover()
    if store.active == "3.0":
        store.roll_back("answers wrongly")


def _judge_back(folder: Path, status: int) -> str:
    state = state_of(folder, "3.0", "2.0")
    assert status != DONE or state == "new", "said done, but the bad version is active"
    return state


def _rerun_back(folder: Path) -> None:
    _back(folder)
    assert state_of(folder, "3.0", "2.0") == "new"
    assert slots(folder).previous in ("1.0", None)
    assert "3.0" in refused(slots(folder).journal.read()), "the refusal was forgotten"


def _sweep(folder: Path) -> None:
    store = slots(folder)
    store.recover()
    store.collect(quota_bytes=0)


def _judge_sweep(folder: Path, status: int) -> str:
    assert state_of(folder, "3.0", "3.0") == "old"
    assert slots(folder).previous == "2.0"
    assert status != DONE or "1.0" not in slots(folder).versions()
    return "old" if "1.0" in slots(folder).versions() else "new"


def _rerun_sweep(folder: Path) -> None:
    _sweep(folder)
    assert slots(folder).versions() == ("2.0", "3.0")


SCENARIOS = [
    Scenario("take a new version", start_with("1.0"), _take, _judge_take, _rerun_take),  # type: ignore[arg-type]
    Scenario("roll back", start_with("1.0", "2.0", "3.0"), _back, _judge_back, _rerun_back),  # type: ignore[arg-type]
    Scenario("sweep", start_with("1.0", "2.0", "3.0"), _sweep, _judge_sweep, _rerun_sweep),  # type: ignore[arg-type]
]
