"""Holds back before the hardware does: reads temperatures now and then, and says how long to rest after work."""

from __future__ import annotations

import time
from typing import Any

from edged.hardware.board import read_board
from edged.hardware.duty import FULL, Duty, duty, limits_for
from edged.hardware.thermal import read_thermal
from edged.hardware.tree import Tree

READ_EVERY_S = 5.0  # reading takes up to 11 ms on a board with many sensors
LONGEST_REST_S = 0.5  # cancels and deadlines are looked at after each rest


class Heat:
    """Owns the duty of one engine."""

    def __init__(self) -> None:
        self._limits = limits_for(read_board(Tree()).kind)
        self._read_s = 0.0
        self.duty: Duty = FULL

    def look(self) -> bool:
        """Read the sensors when it is time; True when the duty has changed."""
        now_s = time.monotonic()
        if now_s - self._read_s < READ_EVERY_S:
            return False
        self._read_s = now_s
        was, self.duty = self.duty, duty(read_thermal(), self._limits, self.duty)
        return was.share != self.duty.share

    def rest_s(self, busy_s: float) -> float:
        """How long to rest after `busy_s` seconds of work."""
        return min(self.duty.pause_s(busy_s), LONGEST_REST_S)

    def to_map(self) -> dict[str, Any]:
        """As status shows it: `share` of full speed, and why less."""
        return {"share": round(self.duty.share, 2), "reason": self.duty.reason or None}
