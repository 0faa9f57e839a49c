"""`edged doctor` as typed, on a box without a daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path


def _doctor(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "EDGED_ENDPOINT": f"ipc://{home}/edged.sock",
        "EDGED_STATE_DIR": str(home / "state"),
        "ORT_DISABLE_TELEMETRY": "1",
    }
    command = [sys.executable, "-m", "edged", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_without_a_daemon_it_fails_and_says_what_to_do(tmp_path: Path) -> None:
    done = _doctor(tmp_path, "--json")
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is False
    by_name = {check["name"]: check for check in report["checks"]}
    assert by_name["daemon"]["level"] == "fail"
    assert by_name["daemon"]["todo"]
    assert by_name["config"]["level"] == "ok"
    assert {"socket", "memory", "disk", "clock", "temperature", "crashes", "updates"} <= set(by_name)


def test_a_fault_in_the_settings_is_one_failed_check_and_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    config.write_text("max_clients = 0\n")
    done = _doctor(tmp_path, "--config", str(config))
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("fail  config")
    assert "max_clients" in lines[0]
    assert any(" memory " in line for line in lines)


def test_the_bundle_holds_what_was_said(tmp_path: Path) -> None:
    path = tmp_path / "support.tar.gz"
    done = _doctor(tmp_path, "--bundle", str(path))
    with tarfile.open(path) as archive:
        names = {name.removeprefix("support/") for name in archive.getnames()}
        doctor = archive.extractfile("support/doctor.txt")
        assert doctor is not None
        assert doctor.read().decode() == done.stdout
    assert {"doctor.txt", "settings.txt", "probe.json", "packages.txt", "journal.txt"} <= names
