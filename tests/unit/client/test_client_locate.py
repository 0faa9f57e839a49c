"""Where a client looks for the daemon, and what it says when nobody is there: real sockets in real directories."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.client import locate
from edged.client.errors import DaemonNotFound
from edged.client.locate import find_daemon, trouble_at


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("EDGED_ENDPOINT", raising=False)
    return tmp_path


@pytest.fixture
def listener(runtime: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        os.chdir(runtime)  # the kernel's limit on a socket's path is shorter than some temporary directories
        listening.bind("edged.sock")
        listening.listen()
        yield listening
        os.chdir("/")


def test_the_users_socket_is_found(runtime: Path, listener: socket.socket) -> None:
    assert find_daemon() == f"ipc://{runtime}/edged.sock"


def test_an_endpoint_in_the_environment_is_the_only_one_looked_at(
    runtime: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_ENDPOINT", f"ipc://{runtime}/elsewhere.sock")
    with pytest.raises(DaemonNotFound) as raised:
        find_daemon()
    assert raised.value.looked_at == ((f"ipc://{runtime}/elsewhere.sock", "no such socket"),)


def test_an_argument_goes_before_the_environment(
    runtime: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_ENDPOINT", f"ipc://{runtime}/elsewhere.sock")
    assert find_daemon(f"ipc://{runtime}/edged.sock") == f"ipc://{runtime}/edged.sock"


def test_nobody_there_names_every_place_and_what_to_do(runtime: Path) -> None:
    with pytest.raises(DaemonNotFound) as raised:
        find_daemon()
    said = str(raised.value)
    assert f"ipc://{runtime}/edged.sock: no such socket" in said
    assert "ipc:///run/edged/edged.sock" in said
    assert "edged serve" in said
    assert isinstance(raised.value, ConnectionError)


def test_a_socket_file_left_behind_is_told_from_a_daemon(runtime: Path, listener: socket.socket) -> None:
    listener.close()
    assert "nobody listens" in trouble_at(f"ipc://{runtime}/edged.sock")


def test_a_file_that_is_no_socket(runtime: Path) -> None:
    (runtime / "edged.sock").write_text("")
    assert trouble_at(f"ipc://{runtime}/edged.sock")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's directory")
def test_another_users_directory_in_tmp_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(f"/tmp/edged-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        os.chown(folder, 12345, 12345)
        assert "another user" in trouble_at(f"ipc://{folder}/edged.sock")
    finally:
        folder.rmdir()


@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:5555", "ipc://@abstract"])
def test_what_only_zeromq_can_tell_is_left_to_it(endpoint: str) -> None:
    assert trouble_at(endpoint) == ""


def test_an_endpoint_that_is_none(runtime: Path) -> None:
    assert "ipc://" in trouble_at("/run/edged/edged.sock")


def test_a_listener_whose_queue_is_full_is_a_listener(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "CONNECT_S", 0.05)
    path = runtime / "busy.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen(0)
        waiting = []
        try:
            for _ in range(4):  # fill the backlog; nobody accepts
                one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                one.setblocking(False)
                waiting.append(one)
                one.connect_ex(str(path))
            assert trouble_at(f"ipc://{path}") == ""
        finally:
            for one in waiting:
                one.close()
