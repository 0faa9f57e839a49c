"""Whole runs of the updater: damage, full disks, two at once, and who gets what and when."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from signing import Device, Publisher

from edged.errors import ModelError
from edged.fleet import releases
from edged.store.digests import hash_file
from edged.update import hold
from edged.update.bundle import BUNDLE_FILE, File, Needs, Rollout
from edged.update.due import not_due
from edged.update.errors import UpdateBusy
from edged.update.report import Report, read_report
from edged.update.staged import check_staged, next_staged
from edged.update.updater import run

KINDS = [
    "model.onnx",
    "model.onnx.data",
    "genai_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "2.bundle.json",
]
DAMAGES = {
    "bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :],
    "first bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "last bit": lambda data: data[:-1] + bytes([data[-1] ^ 0x80]),
    "cut": lambda data: data[: len(data) // 2],
    "one byte short": lambda data: data[:-1],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "zero end": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "tail": lambda data: data + b"\0",
    "doubled": lambda data: data + data,
}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_on_the_way_is_refused(publisher: Publisher, device: Device, models: list[Path], kind: str) -> None:
    """Each kind of file, each kind of damage; the device has nothing of it on the disk already."""
    publisher.release(models[1], "2.0", 2)
    found = [path for path in (publisher.folder / "targets").rglob(f"*.{kind}") if "1.0" not in path.parts]
    assert len(found) == 1
    whole = found[0].read_bytes()
    shutil.rmtree(device.slots.folder)  # nothing to copy from
    device.slots.staging("0.0")
    for name, damage in DAMAGES.items():
        device.slots.drop_staging()  # a good beginning from an earlier round could be completed rightly
        found[0].unlink()
        found[0].write_bytes(damage(whole))
        report = device.update()
        assert (report.phase, report.code) in (("failed", "untrusted"), ("failed", "unreachable")), name
        assert device.slots.versions() == (), name
    found[0].write_bytes(whole)
    assert device.update().phase == "staged"


@pytest.mark.parametrize("kind", [*KINDS[:-1], BUNDLE_FILE])
def test_damage_on_the_disk_is_found_before_it_is_run(device: Device, kind: str) -> None:
    folder = device.slots.path("1.0")
    path = folder / kind
    whole = path.read_bytes()
    for damage in DAMAGES.values():
        path.unlink()
        path.write_bytes(damage(whole))
        with pytest.raises(ModelError):
            check_staged(device.slots, "1.0")
    path.unlink()
    path.write_bytes(whole)
    assert check_staged(device.slots, "1.0").release == 1


def test_a_disk_too_full_is_told_before_the_first_byte(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    report = device.update(reserve_bytes=2**49)
    assert (report.phase, report.code) == ("failed", "no_space")
    assert device.slots.active == "1.0"
    assert not list((device.slots.folder / ".staging").glob("*"))
    assert device.update(quota_bytes=2_000_000).code == "no_space"
    assert device.update().phase == "staged"


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small file system needs root")
def test_a_disk_that_fills_up_on_the_way(publisher: Publisher, models: list[Path], tmp_path: Path) -> None:
    """A real file system of 6 MB; another program fills it. The download gives its space back."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", mount], capture_output=True).returncode:
        pytest.skip("mount is not allowed here")
    try:
        device = Device(mount / "device", publisher)
        device.take()
        publisher.release(models[1], "2.0", 2)
        ballast = mount / "ballast"
        ballast.write_bytes(bytes(shutil.disk_usage(mount).free - 300_000))
        report = device.update()
        assert (report.phase, report.code) == ("failed", "no_space")
        assert shutil.disk_usage(mount).free > 250_000
        assert device.slots.active == "1.0"
        ballast.unlink()
        assert device.take() == "2.0"
    finally:
        subprocess.run(["umount", mount], check=True)


def test_two_updaters_at_once(publisher: Publisher, device: Device, models: list[Path]) -> None:
    publisher.release(models[1], "2.0", 2)
    descriptor = os.open(device.state / "update" / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UpdateBusy):
        device.update()
    command, told = device.command()
    done = subprocess.run(command, input=told, capture_output=True, timeout=60)
    assert done.returncode == 75
    assert b"another updater" in done.stderr
    assert b"Traceback" not in done.stderr
    os.close(descriptor)
    running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(3)]
    for one in running:
        one.communicate(told, timeout=120)
    assert {one.returncode for one in running} <= {0, 75}
    assert 0 in {one.returncode for one in running}
    assert "2.0" in device.slots.versions()


def test_the_process_tells_its_reports_and_the_status_file_keeps_the_last(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    command, told = device.command()
    done = subprocess.run(command, input=told, capture_output=True, timeout=60)
    phases = [json.loads(line)["phase"] for line in done.stdout.splitlines()]
    assert phases[0] == "checking"
    assert phases[-1] == "staged"
    assert read_report(device.state / "update").version == "2.0"
    assert done.returncode == 0
    (device.root_file).unlink()
    done = subprocess.run(command, input=told, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert read_report(device.state / "update").code == "untrusted"


def test_the_process_needs_no_native_cryptography(publisher: Publisher, device: Device) -> None:
    """What facts promise: ed25519 is verified in Python alone."""
    _, told = device.command()
    code = (
        "import sys; sys.modules['cryptography'] = None; sys.argv = ['x']\n"
        "from edged.update.__main__ import main; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], input=told, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["phase"] == "up_to_date"


def test_wrong_use(device: Device) -> None:
    for told in (b"", b"{}", b'{"source": 1}', b"\xff"):
        done = subprocess.run([sys.executable, "-m", "edged.update"], input=told, capture_output=True, timeout=60)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        (Needs(edged="9.9"), "needs edged"),
        (Needs(architectures=("aarch64",)), "is for aarch64"),
        (Needs(providers=("cuda",)), "runs on cuda"),
        (Needs(memory_bytes=2**40), "of memory"),
    ],
)
def test_what_does_not_fit_is_never_downloaded(
    publisher: Publisher, device: Device, models: list[Path], needs: Needs, words: str
) -> None:
    publisher.release(models[1], "2.0", 2, needs=needs)
    report = device.update(providers=("cpu",))
    assert report.phase == "up_to_date"
    assert words in report.passed[0]["detail"]
    assert device.slots.versions() == ("1.0",)


def test_a_release_at_zero_percent_lets_the_one_before_through(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    publisher.release(models[2], "3.0", 3, rollout=Rollout(percent=0))
    assert device.take() == "2.0"


def test_a_version_that_failed_here_is_not_tried_again_until_its_release_rises(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    device.take()
    device.slots.roll_back("too slow", release=2)
    report = device.update()
    assert report.phase == "up_to_date"
    assert report.passed[0]["detail"] == "too slow"
    publisher.release(models[1], "2.0", 3)
    assert device.take() == "2.0"


def test_hold_stops_everything_and_forgets_nothing(publisher: Publisher, device: Device, models: list[Path]) -> None:
    publisher.release(models[1], "2.0", 2)
    hold.hold(device.state / "update", "the fair")
    report = device.update()
    assert (report.phase, report.message) == ("waiting", "held: the fair")
    (device.state / "update" / "hold.json").write_bytes(b"")
    assert device.update().phase == "waiting"
    hold.release(device.state / "update")
    assert device.update().phase == "staged"


def test_conditions_hold_an_update_back_but_not_one_by_hand(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    for changes in (
        {"on_mains": False, "only_on_mains": True},
        {"is_cool": False, "only_when_cool": True},
        {"is_idle": False, "only_when_idle": True},
    ):
        assert device.update(**changes).phase == "waiting"
    assert device.update(on_mains=False, only_on_mains=True, by_hand=True).phase == "staged"


def test_a_window_that_closes_while_it_downloads_leaves_the_files_for_the_next(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    now = time.time()
    start, end = (f"{datetime.fromtimestamp(now + shift_s):%H:%M}" for shift_s in (-1800, 1800))
    settings = device.settings.model_copy(update={"window": f"{start}-{end}"})
    told: list[str] = []
    report = run(
        settings,
        now_s=lambda: now + (3600 if "downloading" in told else 0),
        tell=lambda report: told.append(report.phase),
    )
    assert (report.phase, report.message) == ("waiting", f"outside the maintenance window {start}-{end}")
    assert device.slots.versions() == ("1.0",)
    report = run(settings, now_s=lambda: now)
    assert (report.phase, report.bytes_saved) == ("staged", report.bytes_total)


def test_the_timer_looks_once_a_day_and_again_after_a_failure() -> None:
    now = datetime(2026, 3, 4, 12, 0).timestamp()
    looked = Report(phase="up_to_date", model="nano", checked_s=int(now))
    assert not_due("", "nano", Report(), now, held=False) == ""
    assert "looked" in not_due("", "nano", looked, now + 19 * 3600, held=False)
    assert not_due("", "nano", looked, now + 21 * 3600, held=False) == ""
    assert not_due("", "other", looked, now + 19 * 3600, held=False) == ""  # the last look was for a model of its own
    assert not_due("", "nano", looked, now - 60, held=False) == ""  # the clock was set back
    assert not_due("", "nano", replace(looked, phase="failed"), now + 3600, held=False) == ""
    assert not_due("", "nano", replace(looked, phase="waiting"), now + 3600, held=False) == ""
    assert "looked" in not_due("", "nano", replace(looked, phase="waiting"), now + 3600, held=True)
    assert "outside" in not_due("02:00-03:00", "nano", Report(), now, held=False)
    assert not_due("02:00-03:00", "nano", Report(clock_behind_s=14 * 3600), now, held=False) == ""


def test_a_check_downloads_no_model(publisher: Publisher, device: Device, models: list[Path]) -> None:
    publisher.release(models[1], "2.0", 2)
    report = device.update(action="check")
    assert (report.phase, report.version) == ("available", "2.0")
    assert device.slots.versions() == ("1.0",)


def test_a_model_that_edged_would_not_open_is_not_staged(
    publisher: Publisher, device: Device, models: list[Path], tmp_path: Path
) -> None:
    """The key holders signed a model that loads code: refused all the same."""
    bad = tmp_path / "bad"
    shutil.copytree(models[1], bad)
    bundle = publisher.release(models[1], "1.5", 2)
    config = json.loads((bad / "genai_config.json").read_text())
    config["model"]["decoder"]["session_options"]["custom_ops_library"] = "evil.so"
    (bad / "genai_config.json").write_text(json.dumps(config))
    digest = hash_file(bad / "genai_config.json")
    files = {**bundle.files, "genai_config.json": File(sha256=digest.sha256, length_bytes=digest.length_bytes)}
    evil = bundle.model_copy(update={"version": "2.0", "release": 3, "files": files})
    releases.add(publisher.repository, bad, evil, publisher.offline)
    publisher.publish()
    report = device.update()
    assert (report.phase, report.code) == ("failed", "untrusted")
    assert "custom_ops_library" in report.message
    assert device.slots.versions() == ("1.0",)


def test_two_releases_share_what_is_the_same_on_the_server(publisher: Publisher, models: list[Path]) -> None:
    publisher.release(models[1], "2.0", 2)
    same = list((publisher.folder / "targets" / "nano").glob("*/*.tokenizer.json"))
    assert len(same) == 2
    assert same[0].stat().st_ino == same[1].stat().st_ino


def test_what_is_to_be_tested_next(publisher: Publisher, device: Device, models: list[Path]) -> None:
    assert next_staged(device.slots) is None
    publisher.release(models[1], "2.0", 2)
    device.update()
    assert next_staged(device.slots) == "2.0"
    publisher.release(models[2], "3.0", 3)
    device.update()
    assert next_staged(device.slots) == "3.0"
    device.slots.activate("3.0", 3)
    assert next_staged(device.slots) is None  # 2.0 lies there still, and is older
    device.slots.roll_back("slow", 3)
    assert next_staged(device.slots) == "2.0"
    device.slots.refuse("2.0", "wrong", 2)
    assert next_staged(device.slots) is None
    device.slots.forgive("2.0")
    assert next_staged(device.slots) is None  # only the signed lists say whether it is still offered
    assert device.update().phase == "staged"
    assert next_staged(device.slots) == "2.0"
