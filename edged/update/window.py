"""The hours in which a box may change its models, in its own local time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, tzinfo

from edged.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TEXT = re.compile(r"(?:([a-z]{3}(?:,[a-z]{3})*) )?([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])")


@dataclass(frozen=True, slots=True)
class Window:
    """Minutes of the day, `start` included, `end` not; it may reach over midnight. `days` are those it begins on."""

    start: int
    end: int
    days: frozenset[int] = frozenset(range(7))
    zone: tzinfo | None = None

    @classmethod
    def parse(cls, text: str, zone: tzinfo | None = None) -> Window:
        """`02:00-04:30`, or `sat,sun 22:00-06:00`. Raises ConfigError."""
        match = _TEXT.fullmatch(text.strip().lower())
        days = frozenset(DAYS.index(day) for day in match[1].split(",") if day in DAYS) if match and match[1] else None
        if match is None or days == frozenset() or int(match[2]) > 23 or int(match[4]) > 24:
            raise ConfigError(f"maintenance window {text[:60]!r}: write it like 02:00-04:30 or sat,sun 22:00-06:00")
        start, end = int(match[2]) * 60 + int(match[3]), int(match[4]) * 60 + int(match[5])
        return cls(start, end % 1440 if end > 1440 else end, days if days is not None else frozenset(range(7)), zone)

    def is_open(self, now_s: float) -> bool:
        """At this wall-clock time."""
        now = datetime.fromtimestamp(now_s, self.zone)
        minute, day = now.hour * 60 + now.minute, now.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)

    def __str__(self) -> str:
        days = "" if len(self.days) == 7 else ",".join(DAYS[day] for day in sorted(self.days)) + " "
        return f"{days}{self.start // 60:02}:{self.start % 60:02}-{self.end // 60:02}:{self.end % 60:02}"
