"""Daemons for tests: real `edged serve` processes, each on a socket and a state directory of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.raw import Daemon, nano_folder

Start = Callable[..., Daemon]


@pytest.fixture
def daemon() -> Iterator[Start]:
    """`daemon(model=..., **settings)` starts one and waits until its model answers; all are ended with the test."""
    with ExitStack() as running:

        def start(model: Path | None = None, **settings: Any) -> Daemon:
            return running.enter_context(Daemon(model, **settings)).ready()

        yield start


@pytest.fixture(scope="module")
def endless() -> Iterator[Daemon]:
    """One daemon for a module, whose answers go on to their token limit."""
    with Daemon(ignore_eos=True) as started:
        yield started.ready()


@pytest.fixture(scope="session")
def nano() -> Path:
    """The folder of the nano model."""
    return nano_folder()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="edged-t-", dir="/tmp") as folder:
        yield Path(folder)
