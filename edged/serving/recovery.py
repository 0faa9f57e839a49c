"""What the front has set out to do about one engine, and by when it must have happened. Owned by the engine's link.

A promise that is not kept means that recovery itself failed: an engine that the kernel cannot end, a restart that never
came. The front cannot mend that; it stops feeding the service manager's watchdog, which starts everything anew.
"""

from __future__ import annotations

from collections.abc import Callable


class Recovery:
    """At most one promise is open at a time; `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._what = ""
        self._by_s = 0.0
        self._watched_by_s: float | None = None

    def promise(self, what: str, within_s: float) -> None:
        """`what` will have happened in `within_s` seconds. The first word counts: asking again gains no time."""
        if self._what != what:
            self._what, self._by_s = what, self._clock() + within_s

    def kept(self) -> None:
        """It happened."""
        self._what = ""

    def watched(self, again_within_s: float) -> None:
        """The engine was looked at just now, and will be again in that time."""
        self._watched_by_s = self._clock() + again_within_s

    def broken(self) -> str:
        """What should have happened and did not; "" while all is in time."""
        now_s = self._clock()
        if self._what and now_s > self._by_s:
            return self._what
        if self._watched_by_s is not None and now_s > self._watched_by_s:
            return "a look at the engine"
        return ""
