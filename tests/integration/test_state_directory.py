"""A state directory that cannot be written, on a real file system: the box serves on, and says so."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.raw import Daemon, Peer, chat


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=16", "none", str(tmp_path)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for number in range(100):
            (folder / f"{number}").write_bytes(b"x" * 8192)
    with pytest.raises(OSError, match="No space left"):
        (folder / "one more").write_bytes(b"x")


@pytest.mark.parametrize("trouble", ["read-only", "full"])
def test_a_state_directory_that_takes_nothing_stops_nobody(small_disk: Path, trouble: str) -> None:
    if trouble == "full":
        _fill(small_disk)
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with Daemon(state_dir=str(small_disk)) as daemon, Peer(daemon.ready().endpoint) as peer:
        assert peer.ask("chat", **chat("hello", max_tokens=2))["ev"] == "done"
        assert peer.ask("load", model="nano")["ev"] == "result"
        assert "audit op=load uid=0" in daemon.log()
        assert "audit log not written" in daemon.log()
        assert "Traceback" not in daemon.log()
        assert daemon.terminate() == 0
