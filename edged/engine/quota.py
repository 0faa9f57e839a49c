"""What one uid may take in a minute. Counts only; who is refused is told how long to wait."""

from __future__ import annotations

from collections import deque

from edged.errors import Busy

WINDOW_S = 60.0


class TokenRate:
    """Tokens read and written by each uid in the last minute. `per_minute` 0 is no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._spent: dict[int, deque[tuple[float, int]]] = {}

    def check(self, uid: int, now_s: float) -> None:
        """Raises Busy when this uid has spent its minute; `retry_after_ms` is when enough of it is over."""
        if not self._per_minute:
            return
        spent = self._recent(uid, now_s)
        total = sum(tokens for _, tokens in spent)
        if total < self._per_minute:
            return
        free_s = now_s
        for at_s, tokens in spent:
            if total < self._per_minute:
                break
            total -= tokens
            free_s = at_s + WINDOW_S
        retry_ms = max(1, int((free_s - now_s) * 1000))
        raise Busy(f"this user's {self._per_minute} tokens per minute are spent", retry_after_ms=retry_ms)

    def spend(self, uid: int, tokens: int, now_s: float) -> None:
        """Tokens that a request has used."""
        if self._per_minute:
            self._recent(uid, now_s).append((now_s, tokens))

    def _recent(self, uid: int, now_s: float) -> deque[tuple[float, int]]:
        spent = self._spent.setdefault(uid, deque())
        while spent and spent[0][0] <= now_s - WINDOW_S:
            spent.popleft()
        return spent
