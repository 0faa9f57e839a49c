"""How fast a download may be, and how slow: it sleeps to stay below the one and gives up below the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from edged.update.errors import TooSlow


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second; `most` 0: no limit. `least` is judged over windows of `window_s` seconds."""

    most: int = 0
    least: int = 1024
    window_s: float = 30.0


class Pace:
    """Told of each piece that arrived. Time spent asleep for `most` does not count against the source."""

    def __init__(
        self,
        rates: Rates,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rates, self._clock, self._sleep = rates, clock, sleep
        self._window_start_s = self._started_s = clock()
        self._window_bytes = self._all_bytes = 0

    def arrived(self, count: int) -> None:
        """Raises TooSlow when a whole window brought less than the least rate."""
        self._window_bytes += count
        self._all_bytes += count
        now_s = self._clock()
        spent_s = now_s - self._window_start_s
        if spent_s >= self._rates.window_s:
            if self._window_bytes < self._rates.least * spent_s:
                rate = self._window_bytes / spent_s
                raise TooSlow(f"the source sends {rate:.0f} bytes/s; at least {self._rates.least} are wanted")
            self._window_start_s, self._window_bytes = now_s, 0
        if self._rates.most:
            ahead_s = self._started_s + self._all_bytes / self._rates.most - now_s
            if ahead_s > 0:
                self._sleep(ahead_s)
                self._window_start_s += ahead_s
