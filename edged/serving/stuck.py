"""Is an engine stuck? Judged by what it announced itself; two looks must agree, so that our own pause is not a hang."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from edged.protocol.pulse import NO_REQUEST, Beat

START_ALLOWED_S = 60.0  # Python and its imports from a cold SD card, until the engine's first beat
LATE = -1  # in place of a beat's number
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class HangRule:
    """A native call hangs when it lasts `factor` times what it announced, and at least `floor_s`."""

    factor: float
    floor_s: float


class Verdict(enum.Enum):
    FINE = "fine"
    HANGS = "hangs"
    LATE = "late"


class Watch:
    """Over one engine process after the other. `load_timeout_s` is from its first beat to its first answer; looks that
    are `apart_s` apart may agree."""

    def __init__(self, rule: HangRule, load_timeout_s: float, apart_s: float) -> None:
        self._rule, self._load_timeout_s, self._apart_s = rule, load_timeout_s, apart_s
        self._suspicion: tuple[int, float] | None = None
        self._load_by_s: float | None = None

    def begin(self) -> None:
        """A new process."""
        self._suspicion = self._load_by_s = None

    def loaded(self) -> None:
        """It has answered: loading is over."""
        self._load_by_s = NEVER

    def judge(self, beat: Beat, started_s: float, now_s: float) -> Verdict:
        """One look at its last beat; `started_s` is when the process began."""
        if not beat.sequence:  # it has not said anything yet
            beat = Beat(0, NO_REQUEST, started_s, START_ALLOWED_S / self._rule.factor)
        elif self._load_by_s is None:
            self._load_by_s = beat.started_s + self._load_timeout_s
        overdue = beat.overdue(now_s, factor=self._rule.factor, floor_s=self._rule.floor_s)
        late = self._load_by_s is not None and now_s > self._load_by_s
        seen = LATE if late else beat.sequence
        if not overdue and not late:
            self._suspicion = None
        elif self._suspicion is None or self._suspicion[0] != seen:
            self._suspicion = (seen, now_s)
        elif now_s - self._suspicion[1] > self._apart_s:
            return Verdict.LATE if late else Verdict.HANGS
        return Verdict.FINE
