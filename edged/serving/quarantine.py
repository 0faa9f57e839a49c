"""Inputs that were inside a native call when the engine died. Twice, and they are not tried again."""

from __future__ import annotations

from collections import OrderedDict

from edged.errors import Quarantined

STRIKES = 2
MAX_REMEMBERED = 4096


class Quarantine:
    """Counts deaths by input digest; the oldest is forgotten above a ceiling. Lives as long as the daemon."""

    def __init__(self) -> None:
        self._strikes: OrderedDict[bytes, int] = OrderedDict()

    def __len__(self) -> int:
        return sum(count >= STRIKES for count in self._strikes.values())

    def strike(self, digest: bytes) -> bool:
        """The engine died in a native call for this input; True when it is now quarantined."""
        self._strikes[digest] = self._strikes.get(digest, 0) + 1
        self._strikes.move_to_end(digest)
        if len(self._strikes) > MAX_REMEMBERED:
            self._strikes.popitem(last=False)
        return self._strikes[digest] >= STRIKES

    def check(self, digest: bytes) -> None:
        """Raises Quarantined for an input that is."""
        if self._strikes.get(digest, 0) >= STRIKES:
            raise self.error()

    @staticmethod
    def error() -> Quarantined:
        return Quarantined(
            "this very input has ended the engine twice and is not tried again; change it, or restart edged to retry"
        )
