"""Which models must leave so that another can be loaded. Arithmetic on numbers; the outcome carries the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edged.errors import Busy, RequestError, Unavailable

MIB = 2**20
RETRY_MS = 2000


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that is in memory: what it has promised of it (bytes), when it was used last, whether it has work."""

    name: str
    promised_bytes: int
    used_s: float
    busy: bool


@dataclass(frozen=True, slots=True)
class Load:
    """It may be loaded when `evict` (least recently used first) have left; () when there is room already."""

    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """It may not be loaded now, or not at all."""

    error: RequestError


def make_room(
    name: str, needed_bytes: int, free_bytes: int, residents: Sequence[Resident], *, most: int, may_evict: bool
) -> Load | Refuse:
    """Room for a model of `needed_bytes`, at most `most` models in memory. One that has work is never unloaded.

    What was used least recently leaves first; one whose leaving turned out not to be needed stays.
    """
    if _fits(needed_bytes, free_bytes, len(residents), most):
        return Load()
    idle = sorted((each for each in residents if not each.busy), key=lambda each: each.used_s)
    leaving: list[Resident] = []
    for each in idle:
        leaving.append(each)
        if _fits(needed_bytes, _after(free_bytes, leaving), len(residents) - len(leaving), most):
            break
    else:
        return Refuse(_why_not(name, needed_bytes, free_bytes, residents, most))
    for each in reversed(leaving[:-1]):
        rest = [one for one in leaving if one is not each]
        if _fits(needed_bytes, _after(free_bytes, rest), len(residents) - len(rest), most):
            leaving = rest
    names = tuple(each.name for each in leaving)
    if not may_evict:
        text = f"model {name} does not fit beside {', '.join(names)}, and a request may not unload a model here"
        return Refuse(Unavailable(f"{text}; an admin can", retry_after_ms=60_000))
    return Load(names)


def _fits(needed_bytes: int, free_bytes: int, residents: int, most: int) -> bool:
    return needed_bytes <= free_bytes and residents < most


def _after(free_bytes: int, leaving: Sequence[Resident]) -> int:
    return free_bytes + sum(each.promised_bytes for each in leaving)


def _why_not(
    name: str, needed_bytes: int, free_bytes: int, residents: Sequence[Resident], most: int
) -> Busy | Unavailable:
    busy = ", ".join(each.name for each in residents if each.busy)
    if needed_bytes <= _after(free_bytes, residents) and busy:
        limit = f"; at most {most} models are kept in memory" if len(residents) >= most else ""
        return Busy(f"model {name} must wait until {busy} has no work{limit}; try again", retry_after_ms=RETRY_MS)
    most_mib = _after(free_bytes, residents) // MIB
    return Unavailable(
        f"model {name} does not fit into memory: it needs {needed_bytes // MIB} MiB, {most_mib} MiB could be free",
        retry_after_ms=60_000,
    )
