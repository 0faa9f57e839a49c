"""One check's outcome, and what the outcomes of all mean together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`fail`: edged does not serve, or will not for long. `warn`: it serves, worse than it could. `skip`: not seen."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what the owner can do about it ("" when there is nothing to do)."""

    name: str
    level: Level
    found: str
    todo: str = ""

    def line(self) -> str:
        """One line for a person."""
        return f"{self.level.value:4}  {self.name:11}  {self.found}" + (f"  →  {self.todo}" if self.todo else "")


def exit_status(checks: Sequence[Check]) -> int:
    """1 when a check failed, else 0: a warning is for reading, not for paging somebody."""
    return int(any(check.level is Level.FAIL for check in checks))
