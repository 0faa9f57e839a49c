"""Who is cut when memory grows, in which order, that nobody is while it does not, and what is asked of the kernel."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edged.hardware.memory import own_rss_reader, process_rss
from edged.serving import descriptors
from edged.serving.door import Client
from edged.serving.guard import Guard
from edged.serving.outbox import Outbox
from edged.serving.peer import Peer

MB = 2**20


class Hall:
    """Connections that can be cut, and a memory that the test sets."""

    def __init__(self) -> None:
        self.silent = 3
        self.flooding = 0
        self.news = os.eventfd(0, os.EFD_NONBLOCK)
        self.come()
        self.rss_bytes = 50 * MB
        self.asked_by: set[str] = set()  # the threads that asked for `news_fds`
        self.looks = 0
        self.order: list[int] = []
        self.falling = False
        self.guard: Guard
        self.on_first: Callable[[], None] = lambda: None

    @property
    def connections(self) -> int:
        return self.silent + self.flooding + len(self.clients)

    @property
    def news_fds(self) -> list[int]:
        self.asked_by.add(threading.current_thread().name)
        return [self.news]

    def cut_flooding(self, unread_bytes: int) -> int:
        ended, self.flooding = self.flooding, 0
        return ended

    def cut_silent(self) -> int:
        ended, self.silent = self.silent, 0
        if ended:
            self.order.append(ended)
        return ended

    def cut_clients(self, spare: Callable[[Client], bool]) -> int:
        before = len(self.clients)
        self.clients = [client for client in self.clients if spare(client)]
        self.order.append(before - len(self.clients))
        return self.order[-1]

    def look(self) -> int:
        self.looks += 1
        self.rss_bytes -= self.falling * MB
        return self.rss_bytes

    def come(self) -> None:
        """Four clients, of whom one is at work."""
        self.clients = [Client(b"%d" % number, number, Peer(1000), False, Outbox(1000)) for number in range(4)]

    def looked_at(self, times: int) -> None:
        goal = self.looks + times
        until(lambda: self.looks >= goal)


def until(true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.001)


@pytest.fixture
def hall() -> Iterator[Hall]:
    """With a guard that looks."""
    made = Hall()
    made.guard = Guard(made, 100 * MB, made.look, lambda client: client.fd == 0)
    made.guard.start()
    yield made
    made.guard.close()
    os.close(made.news)
    assert "guard" not in {thread.name for thread in threading.enumerate()}


def test_nobody_is_cut_below_the_ceiling(hall: Hall) -> None:
    hall.rss_bytes = 99 * MB
    hall.looked_at(4)
    assert hall.connections == 7
    assert hall.asked_by == {"MainThread"}, "a socket is only for the thread of the event loop"


def test_it_hardly_looks_while_nobody_is_there_and_at_once_when_somebody_comes(hall: Hall) -> None:
    hall.silent, hall.clients = 0, []
    hall.looked_at(2)
    looks, started_s = hall.looks, time.monotonic()
    time.sleep(0.3)
    assert hall.looks <= looks + 1 + (time.monotonic() - started_s)
    hall.silent, hall.rss_bytes = 1, 101 * MB
    os.eventfd_write(hall.news, 1)
    until(lambda: hall.silent == 0)


@pytest.mark.parametrize("counted", [False, True], ids=["news unread", "news read by the event loop first"])
def test_whoever_comes_first_wakes_it_whoever_hears_of_it_first(
    hall: Hall, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.serving.guard.ALONE_LOOK_S", 3600.0)
    hall.silent, hall.clients = 0, []
    hall.looked_at(1)
    time.sleep(0.1)
    hall.silent, hall.rss_bytes = 1, 101 * MB
    if counted:
        hall.on_first()
    else:
        os.eventfd_write(hall.news, 1)
    until(lambda: hall.silent == 0)


def test_the_silent_go_first_then_the_idle_then_all(hall: Hall) -> None:
    hall.rss_bytes = 101 * MB
    until(lambda: hall.silent == 0)
    until(lambda: len(hall.clients) < 4)
    assert [client.fd for client in hall.clients] in ([0], [])  # the busy one is spared at first
    until(lambda: not hall.clients)
    assert hall.order == [3, 3, 1]
    hall.come()
    until(lambda: not hall.clients)  # memory is still short: who comes again is no better off


def test_while_memory_falls_only_those_that_flood_are_cut(hall: Hall) -> None:
    hall.falling = True
    hall.rss_bytes = 400 * MB
    hall.looked_at(1)
    silent, clients = hall.silent, len(hall.clients)
    hall.flooding = 2
    until(lambda: hall.flooding == 0)
    hall.looked_at(3)
    assert hall.rss_bytes > 100 * MB
    assert (hall.silent, len(hall.clients)) == (silent, clients)


def test_memory_is_read_without_opening_anything() -> None:
    read = own_rss_reader()
    before, opened = read(), descriptors.open_count()
    block = bytearray(os.urandom(64 * MB))
    assert 60 * MB < read() - before < 80 * MB
    found = process_rss()
    assert found is not None
    assert abs(found.rss_bytes - read()) < 8 * MB
    assert descriptors.open_count() == opened
    del block


def test_only_a_connection_of_the_door_is_hung_up(tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("door", "other")]
    listening = [socket.socket(socket.AF_UNIX) for _ in paths]
    peers, accepted = [], []
    for listener, path in zip(listening, paths, strict=True):
        listener.bind(path)
        listener.listen()
        peers.append(socket.socket(socket.AF_UNIX))
        peers[-1].connect(path)
        accepted.append(listener.accept()[0])
        peers[-1].send(b"12345")
    assert [descriptors.unread_bytes(each.fileno()) for each in accepted] == [5, 5]
    opened = descriptors.open_count()
    for each in [*accepted, *listening]:
        descriptors.hang_up(each.fileno(), paths[0])
    with (tmp_path / "file").open("wb") as file:
        descriptors.hang_up(file.fileno(), paths[0])
    assert descriptors.open_count() == opened
    assert peers[0].recv(1) == b""
    peers[1].settimeout(0.05)
    with pytest.raises(TimeoutError):
        peers[1].recv(1)
    again = socket.socket(socket.AF_UNIX)
    again.connect(paths[0])  # who listens was left alone
    for each in [again, *peers, *accepted, *listening]:
        each.close()
