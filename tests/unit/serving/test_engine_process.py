"""Engine processes as the front sees them: their end is heard, told in words, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.serving.engine_process import Exit, private_directory


@pytest.mark.parametrize(
    ("returncode", "words"),
    [(0, "exit status 0"), (1, "exit status 1"), (-9, "signal SIGKILL"), (-11, "signal SIGSEGV"), (-40, "signal 40")],
)
def test_an_end_is_told_in_words(returncode: int, words: str) -> None:
    assert Exit(returncode).describe() == words


def test_the_channel_lies_in_a_directory_of_its_own(tmp_path: Path) -> None:
    made = private_directory(tmp_path)
    assert made.parent == tmp_path
    assert made.stat().st_mode & 0o777 == 0o700
    far = tmp_path / ("x" * 100)
    far.mkdir()
    elsewhere = private_directory(far)  # a socket's path has 107 bytes at most
    assert str(elsewhere).startswith("/tmp/edged-engine-")
    elsewhere.rmdir()


def test_what_killed_fronts_left_is_taken_away_and_what_lives_is_not(tmp_path: Path) -> None:
    dead, alive = tmp_path / "engine-4194304-x", private_directory(tmp_path)  # above the highest pid there can be
    dead.mkdir()
    (dead / "1").touch()
    private_directory(tmp_path)
    assert not dead.exists()
    assert alive.exists()
