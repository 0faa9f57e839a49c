"""What a person sees on stderr until the first word comes: the model loading, the place in the queue, the prompt being
read. Nothing at all when stderr is no terminal.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edged.client import Accepted, Answer, Client, Delta, Event, Progress, Queued

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

LONG_PROMPT_TOKENS = 512
LOOK_AGAIN_S = 0.1


class Waiting:
    """One line on stderr, taken away when the answer begins. Use it in a `with`."""

    def __init__(self) -> None:
        self._shown: tuple[Bar, TaskID] | None = None
        self._tty = sys.stderr.isatty()

    def for_model(self, client: Client) -> None:
        """Show the load until the model is ready, or has failed: the request itself will say why."""
        if not self._tty:
            return  # the daemon makes the request wait
        while True:
            loading = [model for model in client.status().models if model.state in ("loading", "lost")]
            if not loading:
                self.clear()
                return
            self._show(f"model {loading[0].name}: {loading[0].reason or loading[0].state}")
            time.sleep(LOOK_AGAIN_S)

    def event(self, event: Event) -> None:
        """What the daemon says of a running request."""
        match event:
            case Queued():
                about = f", about {event.wait_ms / 1000:.0f} s" if event.wait_ms >= 1000 else ""
                self._show(f"waiting its turn: place {event.position}{about}")
            case Accepted() if event.prompt_tokens - event.cached_tokens >= LONG_PROMPT_TOKENS:
                self._show("reading the prompt", event.cached_tokens, event.prompt_tokens)
            case Progress():
                self._show("reading the prompt", event.prompt_tokens_read, event.prompt_tokens)
            case Delta() | Answer():
                self.clear()

    def clear(self) -> None:
        """Take the line away."""
        if self._shown is not None:
            self._shown[0].stop()
            self._shown = None

    def _show(self, what: str, done: int | None = None, total: int | None = None) -> None:
        if not self._tty:
            return
        if self._shown is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False)]
            if total is not None:
                columns += [BarColumn(), MofNCompleteColumn()]
            bar = Bar(*columns, console=Console(stderr=True), transient=True)
            bar.start()
            self._shown = (bar, bar.add_task(what))
        bar, task = self._shown
        bar.update(task, description=what, completed=done, total=total)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()
