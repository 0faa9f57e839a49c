"""Clients that ask without a pause, each on a connection of its own, while something is done to the daemon."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from edged.client import Client, ClientError
from edged.errors import RequestError


@dataclass(frozen=True, slots=True)
class Answered:
    """One stream that came to its end; times in CLOCK_MONOTONIC seconds."""

    asked_s: float
    first_s: float
    ended_s: float
    tokens: int


class Asker:
    """`clients` threads that each ask for `tokens` tokens, streamed, again and again, with a pause in between.

    `lost` says what went wrong.
    """

    def __init__(
        self, endpoint: str, *, clients: int = 2, tokens: int = 120, pause_s: float = 0.0, system: str = ""
    ) -> None:
        self._endpoint, self._tokens, self._pause_s = endpoint, tokens, pause_s
        self._turns = [{"role": "system", "content": system}] if system else []
        self._turns.append({"role": "user", "content": "tell me about the lab"})
        self._stop = threading.Event()
        self.answered: list[Answered] = []
        self.lost: list[str] = []
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def _ask(self) -> None:
        with Client(self._endpoint, timeout_s=120) as client:
            while not self._stop.is_set():
                asked_s = time.monotonic()
                try:
                    stream = client.chat(self._turns, stream=True, max_tokens=self._tokens)
                    next(stream)
                    first_s = time.monotonic()
                    answer = stream.result()
                except (RequestError, ClientError) as problem:
                    self.lost.append(f"{type(problem).__name__}: {problem}")
                    self._stop.wait(0.05 + self._pause_s)
                    continue
                if answer.finish_reason != "length" or answer.usage.completion_tokens != self._tokens:
                    self.lost.append(f"{answer.finish_reason} after {answer.usage.completion_tokens} tokens")
                tokens = answer.usage.completion_tokens
                self.answered.append(Answered(asked_s, first_s, time.monotonic(), tokens))
                self._stop.wait(self._pause_s)
