"""`edged install` as typed: into a folder of our own, and refused where it would not work."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from edged.cli.install_cmd import _check_visible
from edged.errors import OwnerError


def _edged(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edged", *arguments], capture_output=True, text=True, timeout=60)


def test_dry_run_prints_every_file_it_would_write_and_writes_none(tmp_path: Path) -> None:
    dry = _edged("install", "--dry-run", "--root", str(tmp_path))
    assert dry.returncode == 0, dry.stderr
    assert list(tmp_path.iterdir()) == []
    done = _edged("install", "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    written = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("wrote")]
    assert written == [line.split()[1] for line in dry.stdout.splitlines() if line.startswith("--- ")]
    for path in written:
        assert (tmp_path / path.lstrip("/")).read_text() in dry.stdout


def test_install_and_uninstall_may_both_run_twice(tmp_path: Path) -> None:
    for _ in range(2):
        assert _edged("install", "--root", str(tmp_path)).returncode == 0
    for _ in range(2):
        assert _edged("uninstall", "--purge", "--root", str(tmp_path)).returncode == 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may install")
def test_an_ordinary_user_is_told_to_use_sudo() -> None:
    done = _edged("install")
    assert done.returncode == 1
    assert done.stderr == "edged: this changes the system: sudo edged install\n"


def test_a_program_that_the_service_cannot_see_is_refused() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        program = Path(folder) / "edged"
        with pytest.raises(OwnerError, match="not there"):
            _check_visible(program)
        program.touch()
        with pytest.raises(OwnerError, match="the service cannot see this place"):
            _check_visible(program)
