"""Directories for the socket on a real disk: those that are safe, and each kind that is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edged.errors import ConfigError
from edged.serving.place import make_directory, only_daemon


def test_a_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    make_directory(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700
    make_directory(tmp_path / "run")  # and again


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755, 0o1777])
def test_one_that_only_its_owner_can_change_is_taken_as_it_is(tmp_path: Path, mode: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    make_directory(tmp_path / "run")
    assert (tmp_path / "run").stat().st_mode & 0o7777 == mode


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_one_that_others_may_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(mode)
    with pytest.raises(ConfigError, match=f"mode {mode:o}.*chmod go-w"):
        make_directory(tmp_path / "run")


def test_a_symbolic_link_is_refused_also_one_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="symbolic link"):
        make_directory(tmp_path / "link")
    with pytest.raises(ConfigError, match="cannot be made"):
        make_directory(tmp_path / "dangling")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        make_directory(tmp_path / "file")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give a directory away")
def test_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o755)
    os.chown(tmp_path / "run", 70_001, 70_001)
    with pytest.raises(ConfigError, match="belongs to uid 70001"):
        make_directory(tmp_path / "run")


def test_a_second_daemon_is_kept_away_and_a_stale_socket_is_not(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/s"
    (tmp_path / "s").touch()
    with only_daemon(endpoint):
        assert not (tmp_path / "s").exists()
        with pytest.raises(ConfigError, match="another edged serves"), only_daemon(endpoint):
            pass
    with only_daemon(endpoint):
        pass
    with pytest.raises(ConfigError, match="longer than"), only_daemon(f"ipc://{tmp_path}/{'x' * 108}"):
        pass
