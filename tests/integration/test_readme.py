"""The programs in README.md, run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.raw import PATIENCE_S, ROOT, Daemon

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_readme_shows_the_client_and_a_raw_socket() -> None:
    assert [("edged.client" in program, "zmq.DEALER" in program) for program in PROGRAMS] == [
        (True, False),
        (False, True),
    ]
    assert all(len(program.strip().splitlines()) <= 10 for program in PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS, ids=["client", "raw"])
def test_it_runs_and_ends_with_usage_and_timings(program: str, endless: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S * 2,
        env=os.environ | {"EDGED_ENDPOINT": endless.endpoint, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "completion_tokens" in done.stdout
    assert "ttft_ms" in done.stdout


def test_what_it_points_to_is_there() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    for command in ("demo", "test"):
        assert os.access(ROOT / "tools" / command, os.X_OK)
    assert Path(ROOT / "LICENSE").is_file()
