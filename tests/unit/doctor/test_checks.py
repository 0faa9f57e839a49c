"""What the doctor says of boxes in good and bad health, and what it tells their owner to do."""

from __future__ import annotations

import datetime
import os
import socket
from pathlib import Path

import pytest

from edged.doctor.check import Check, Level, exit_status
from edged.doctor.daemon import check_answer, check_crashes, check_models, check_quarantine, check_updates
from edged.doctor.files import NO_DISK_BYTES, check_disk, check_model, check_socket, check_state
from edged.doctor.machine import check_clock, check_heat, check_memory, clock_synchronised
from edged.hardware.memory import MemoryReading
from edged.hardware.pressure import PressureLevel
from edged.hardware.thermal import ThermalReading, Zone
from edged.hardware.throttle import Throttling

GIB = 2**30
NOW = datetime.datetime(2027, 5, 1, 12, 0, tzinfo=datetime.UTC)


def test_only_a_failure_makes_the_exit_status() -> None:
    checks = [Check("a", Level.OK, ""), Check("b", Level.WARN, ""), Check("c", Level.SKIP, "")]
    assert exit_status(checks) == 0
    assert exit_status([*checks, Check("d", Level.FAIL, "")]) == 1


def test_a_line_says_what_was_found_and_what_to_do() -> None:
    assert (
        Check("disk", Level.WARN, "0.1 GB free", "make room").line() == "warn  disk         0.1 GB free  →  make room"
    )


def test_state_that_others_may_write_is_a_failure(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert check_state(state, None).level is Level.OK
    state.mkdir(mode=0o700)
    assert check_state(state, None).level is Level.OK
    state.chmod(0o777)
    found = check_state(state, None)
    assert found.level is Level.FAIL
    assert found.todo == f"chmod 700 {state}"


def test_state_of_another_user_than_the_services_is_a_failure(tmp_path: Path) -> None:
    found = check_state(tmp_path, os.getuid() + 1)
    assert found.level is Level.FAIL
    assert "chown -R edged:edged-clients" in found.todo


def test_a_file_where_the_state_should_be_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    assert check_state(tmp_path / "state", None).level is Level.FAIL


def test_socket_missing_wrong_kind_too_open_and_right(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert "systemctl start edged" in check_socket(path, None).todo
    path.write_text("")
    assert "is no socket" in check_socket(path, None).found
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        assert check_socket(path, None).level is Level.FAIL
        path.chmod(0o660)
        assert check_socket(path, None).level is Level.OK
    assert check_socket(None, None).level is Level.OK


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = check_model("llama", tmp_path)
    assert found.level is Level.FAIL
    assert "llama" in found.found
    assert found.todo


@pytest.mark.parametrize(
    ("free", "level"), [(5 * GIB, Level.OK), (NO_DISK_BYTES * 2, Level.WARN), (0, Level.FAIL), (None, Level.SKIP)]
)
def test_disk(free: int | None, level: Level, tmp_path: Path) -> None:
    assert check_disk(free, 8 * GIB, tmp_path).level is level


@pytest.mark.parametrize(
    ("free", "pressure", "level"),
    [
        (GIB, PressureLevel.NONE, Level.OK),
        (GIB, PressureLevel.LOW, Level.WARN),
        (100 * 2**20, PressureLevel.NONE, Level.WARN),
        (GIB, PressureLevel.CRITICAL, Level.FAIL),
    ],
)
def test_memory(free: int, pressure: PressureLevel, level: Level) -> None:
    assert check_memory(MemoryReading(4 * GIB, free, "test"), pressure).level is level


def test_a_clock_before_the_program_was_made_is_a_failure() -> None:
    past = check_clock(datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC), True)
    assert past.level is Level.FAIL
    assert "timedatectl" in past.todo
    assert check_clock(NOW, True).level is Level.OK
    assert check_clock(NOW, False).level is Level.WARN
    assert check_clock(NOW, None).level is Level.OK


def test_the_kernel_is_asked_whether_its_clock_is_synchronised() -> None:
    assert clock_synchronised() in (True, False, None)


def test_heat_warns_before_the_kernel_slows_down_and_says_what_helps() -> None:
    cool = ThermalReading((Zone("cpu-thermal", 50.0, 80.0, 110.0),), Throttling())
    near = ThermalReading((Zone("cpu-thermal", 77.0, 80.0, 110.0),), Throttling())
    weak = ThermalReading((Zone("cpu-thermal", 50.0),), Throttling(now=("under-voltage",)))
    pmic = ThermalReading((Zone("PMIC-Die", 100.0, 100.0),), Throttling())
    assert check_heat(cool).level is Level.OK
    assert check_heat(near).level is Level.WARN
    assert "supply" in check_heat(weak).todo
    assert check_heat(pmic).level is Level.OK
    assert "no sensor" in check_heat(ThermalReading((), Throttling())).found


def test_no_daemon_is_a_failure_with_where_to_look() -> None:
    found = check_answer(None, "no edged daemon found")
    assert found.level is Level.FAIL
    assert "journalctl -u edged" in found.todo
    assert check_answer({"version": "1", "uptime_s": 90_000}, "").found == "edged 1 answers, up 1 d 1 h"
    assert check_answer({"draining": True}, "").level is Level.WARN


def test_a_model_that_failed_to_load_gives_its_reason() -> None:
    status = {"models": [{"name": "nano", "state": "failed", "reason": "model.onnx: truncated"}]}
    found = check_models(status)
    assert (found.level, found.found) == (Level.FAIL, "nano: model.onnx: truncated")
    assert check_models({"models": [{"name": "nano", "state": "loading"}]}).level is Level.WARN
    ready = check_models({"models": [{"name": "nano", "state": "ready", "provider": "cpu"}]})
    assert (ready.level, ready.found) == (Level.OK, "nano on cpu")


def test_crashes_are_told_from_both_sides() -> None:
    status = {"models": [{"name": "nano", "restarts": 2, "last_end": "signal SIGSEGV"}]}
    found = check_crashes(status, {"NRestarts": "1", "Result": "watchdog"})
    assert found.level is Level.WARN
    for word in ("SIGSEGV", "restarted the daemon 1 times", "watchdog"):
        assert word in found.found
    assert check_crashes({"models": []}, {"NRestarts": "0", "Result": "success"}).level is Level.OK
    assert check_crashes(None, {}).level is Level.SKIP


def test_refused_inputs_and_failed_updates_are_warnings() -> None:
    assert check_quarantine({"front": {"quarantined_inputs": 1}}).level is Level.WARN
    assert check_quarantine({"front": {}}).level is Level.OK
    assert check_updates({"phase": "failed", "message": "signature"}, 0).level is Level.WARN
    assert check_updates({"phase": "up_to_date", "checked_s": 100}, 6 * 86_400).level is Level.OK
    assert "for 9 d" in check_updates({"phase": "up_to_date", "checked_s": 100}, 9 * 86_400 + 100).found
    assert check_updates(None, 0).level is Level.OK
