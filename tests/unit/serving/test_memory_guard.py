"""Who is cut when memory grows, in which order, and that nobody is while it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edged.serving.door import Client
from edged.serving.memory_guard import MemoryGuard
from edged.serving.outbox import Outbox
from edged.serving.peer import Peer

MB = 2**20


class Hall:
    """Connections that can be cut, and a memory that the test sets."""

    def __init__(self) -> None:
        self.on_accept: Callable[[], None] = lambda: None
        self.silent = 3
        self.clients = [Client(b"%d" % number, number, Peer(1000), False, Outbox(1000)) for number in range(4)]
        self.rss_bytes = 50 * MB
        self.looks = 0

    @property
    def connections(self) -> int:
        return self.silent + len(self.clients)

    def cut_silent(self) -> int:
        ended, self.silent = self.silent, 0
        return ended

    def cut_clients(self, spare: Callable[[Client], bool]) -> int:
        before = len(self.clients)
        self.clients = [client for client in self.clients if spare(client)]
        return before - len(self.clients)

    def look(self) -> int:
        self.looks += 1
        return self.rss_bytes

    def guard(self) -> MemoryGuard:
        return MemoryGuard(self, 100 * MB, self.look, lambda client: client.fd == 0)

    async def looked_at(self, times: int) -> None:
        goal = self.looks + times
        async with asyncio.timeout(20):
            while self.looks < goal:  # noqa: ASYNC110  the guard looks when its timer says
                await asyncio.sleep(0.005)


async def test_nobody_is_cut_below_the_ceiling_and_nothing_is_looked_at_while_nobody_is_there() -> None:
    hall = Hall()
    guard = hall.guard()
    assert hall.looks == 0
    hall.rss_bytes = 99 * MB
    hall.on_accept()
    await hall.looked_at(3)
    assert hall.connections == 7
    hall.silent, hall.clients = 0, []
    await hall.looked_at(1)
    looks = hall.looks
    await asyncio.sleep(0.3)
    assert hall.looks == looks
    guard.close()


async def test_the_silent_go_first_then_the_idle_then_all() -> None:
    hall = Hall()
    guard = hall.guard()
    hall.rss_bytes = 101 * MB
    hall.on_accept()
    await hall.looked_at(1)
    assert (hall.silent, len(hall.clients)) == (0, 4)
    async with asyncio.timeout(20):
        while len(hall.clients) == 4:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert [client.fd for client in hall.clients] == [0], "the busy one is spared"
    async with asyncio.timeout(20):
        while hall.clients:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert guard.cuts == 7
    guard.close()


async def test_while_memory_falls_nobody_else_is_cut() -> None:
    hall = Hall()
    guard = hall.guard()
    hall.rss_bytes = 180 * MB
    hall.on_accept()
    await hall.looked_at(1)
    assert hall.silent == 0
    for _ in range(8):
        hall.rss_bytes -= 5 * MB
        await hall.looked_at(1)
    assert len(hall.clients) == 4
    hall.rss_bytes = 90 * MB
    await hall.looked_at(2)
    assert len(hall.clients) == 4
    guard.close()
