"""Short forms of the fault commands for updates; the commands themselves take minutes (`--help`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def command(name: str, *words: str) -> Any:
    """The JSON summary of a command; skips the test with its reason where it cannot run."""
    done = subprocess.run(
        [sys.executable, str(HERE / name), *words, "--json"], capture_output=True, text=True, timeout=900, check=False
    )
    found = json.loads(done.stdout)
    if done.returncode == 77:
        pytest.skip(found["skipped"])
    assert done.returncode == 0, done.stdout + done.stderr
    return found


@pytest.mark.parametrize(
    ("scenario", "every"), [("take a new version", 37), ("roll back", 11), ("sweep", 31), ("whole update", 151)]
)
def test_faults_at_file_system_calls(scenario: str, every: int) -> None:
    found = command("update_syscalls.py", "--scenario", scenario, "--every", str(every))
    assert found[0]["injected"] >= 15
    assert found[0]["breaches"] == []
    assert set().union(*found[0]["outcomes"].values()) <= {"old", "new"}


def test_power_cuts() -> None:
    found = command("update_power.py", "--cuts", "8")
    assert found["cuts"] == 8
    assert found["broken"] == []


@pytest.mark.parametrize("name", ["update_syscalls.py", "update_power.py"])
def test_the_commands_explain_themselves(name: str) -> None:
    done = subprocess.run([sys.executable, str(HERE / name), "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "Exit codes" in done.stdout
