"""From tokens to text a client may see: whole UTF-8 characters, nothing of a stop string, nothing lost at the end."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class StopFinder:
    """Holds back what may turn out to be the beginning of a stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What may be shown of all that was pushed so far and not shown yet; `found` when a stop string is whole."""
        if not self._stops:
            return text
        if self.found:
            return ""
        self._held += text
        # the one that is whole first, so that token borders make no difference; of two, the longer
        ends = [(place + len(stop), place) for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if ends:
            self.found = True
            shown, self._held = self._held[: min(ends)[1]], ""
            return shown
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """The answer is over: what was held back is text after all."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest proper beginning of `stop` that `text` ends with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0


class TextStream:
    """Bytes of tokens in, text out. Bytes that are not UTF-8 become U+FFFD, at the latest at the end."""

    def __init__(self, stops: Sequence[str] = (), *, strip_first_space: bool = False) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stops = StopFinder(stops)
        self._strip = strip_first_space

    @property
    def stopped(self) -> bool:
        """A stop string was met."""
        return self._stops.found

    def push(self, data: bytes) -> str:
        """Text that is now certain."""
        if self._strip and data:
            self._strip = False
            data = data.removeprefix(b" ")
        return self._stops.push(self._utf8.decode(data))

    def finish(self) -> str:
        """The rest: an unfinished character as U+FFFD, and what was held back for a stop string."""
        rest = self._stops.push(self._utf8.decode(b"", final=True))
        return rest if self._stops.found else rest + self._stops.flush()
