"""The long fault runs in a short form, so that they cannot rot; their own commands do the numbers of the bars."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.integration.raw import ROOT

RUNS = {
    "engine_deaths": ["--count", "1", "--within-s", "20"],
    "front_deaths": ["--count", "2"],
    "door_attacks": ["--count", "5", "--seconds", "2", "--only", "half-open,duplicates,descriptors"],
    "multipart": ["--only", "multipart", "--seconds", "3", "--hogs", "2"],
    "fuzz_msgpack": ["--count", "4000", "--wire-every", "10"],
    "fuzz_zmtp": ["--count", "2000", "--seconds", "20"],
    "flood": ["--count", "500", "--connections", "100"],
    "slow_readers": ["--count", "3"],
    "vanishing_clients": ["--count", "10"],
    "update_attacks": ["--count", "1"],
    "update_swap": ["--count", "2"],
}


MODULES = {"multipart": "door_attacks"}


@pytest.mark.parametrize("name", RUNS)
def test_run(name: str) -> None:
    command = [sys.executable, "-m", f"tests.fault.{MODULES.get(name, name)}"]
    done = subprocess.run([*command, *RUNS[name]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert json.loads(done.stdout)["failures"] == []
    told = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "--count" in told.stdout
