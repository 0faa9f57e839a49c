"""How far a long read has come: a bar on a terminal, a few lines elsewhere, nothing where a program reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from edged.cli.printable import printable

STEP = 0.25


class Meter:
    """Told how much there is of each file; adds up."""

    def __init__(self, title: str, total_bytes: int, bar: Any = None, *, quiet: bool = False) -> None:
        self._title, self._total, self._bar, self._quiet = title, max(1, total_bytes), bar, quiet
        self._done: dict[str, int] = {}
        self._said = 0.0

    def at(self, name: str, done_bytes: int) -> None:
        """`done_bytes` of the file `name` are there."""
        self._done[name] = done_bytes
        self._show(sum(self._done.values()))

    def more(self, count_bytes: int) -> None:
        """So many bytes more, of whichever file."""
        self.at("", self._done.get("", 0) + count_bytes)

    def _show(self, done: int) -> None:
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, completed=done)
        elif not self._quiet and done / self._total >= self._said + STEP:
            self._said = done / self._total // STEP * STEP
            typer.echo(f"{self._title}: {self._said:.0%} of {self._total / 1e6:.1f} MB", err=True)


@contextmanager
def meter(title: str, total_bytes: int, *, quiet: bool) -> Iterator[Meter]:
    """A meter that is taken away when the work ends, however it ends."""
    title = printable(title)
    if quiet or not sys.stderr.isatty():
        yield Meter(title, total_bytes, quiet=quiet)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        yield Meter(title, total_bytes, (progress, progress.add_task(title, total=total_bytes)))
