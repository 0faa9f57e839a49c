"""The lowest versions and the earliest time that may still be true, remembered across lost caches and wrong clocks.

Owns two copies of one small file, in two folders: a copy that was lost, cut short or zeroed is passed over.
A floor of a role belongs to the keys that signed it: new keys for a role (only the root's holders can give them) begin
a new count, so that a stolen key that counted up to the sky cannot lock a fleet out for good.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edged.store.durable import make_folder, write_file

FILE = "floors.json"
MAX_BYTES = 64 * 1024
ROLES = ("timestamp", "snapshot", "targets")


@dataclass(frozen=True, slots=True)
class RoleFloor:
    """`keys` names the set of keys and the threshold under which `version` was seen."""

    version: int = 0
    keys: str = ""


@dataclass(frozen=True, slots=True)
class Floors:
    """`issued_s`: when the newest accepted timestamp says it was signed (Unix time); no clock may be before it.
    `anchor` names the installed root of trust under which all this was seen.
    """

    generation: int = 0
    root_version: int = 0
    roles: Mapping[str, RoleFloor] = field(default_factory=dict)
    issued_s: int = 0
    anchor: str = ""

    def version(self, role: str, keys: str) -> int:
        """The lowest acceptable version of `role` when `keys` sign for it."""
        floor = self.roles.get(role, RoleFloor())
        return floor.version if floor.keys == keys else 0

    def issued(self, timestamp_keys: str) -> int:
        """The earliest time that may be now."""
        return self.issued_s if self.roles.get("timestamp", RoleFloor()).keys == timestamp_keys else 0


class FloorStore:
    """Reads and writes both copies. The folders should not be one inside the other."""

    def __init__(self, first: Path, second: Path) -> None:
        self._paths = (first / FILE, second / FILE)
        self.note = ""

    def read(self) -> Floors:
        """The newest sound copy; empty floors when there is none, and `note` says so if there should be."""
        found = [_read(path) for path in self._paths]
        sound = [floors for floors in found if isinstance(floors, Floors)]
        damaged = sum(floors is _DAMAGED for floors in found)
        self.note = ""
        if damaged and not sound:
            self.note = "both copies of the version floors are damaged: trust starts again from the installed root"
        elif damaged or len(sound) == 1:
            self.note = "one copy of the version floors was lost; it is written again"
        return max(sound, key=lambda floors: floors.generation, default=Floors())

    def write(self, floors: Floors) -> Floors:
        """Writes both copies, one after the other. Raises OSError; one copy at least then holds old or new floors."""
        new = replace(floors, generation=floors.generation + 1)
        values = asdict(new)
        text = json.dumps(values, sort_keys=True)
        data = json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "floors": values}).encode()
        for path in self._paths:
            make_folder(path.parent)
            write_file(path, data)
        return new


_DAMAGED = object()


def _read(path: Path) -> Floors | object | None:
    """Floors, `_DAMAGED` for a file that does not prove itself, None when there is no file."""
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError:
        return _DAMAGED
    try:
        found: dict[str, Any] = json.loads(data)
        values = found["floors"]
        if hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest() != found["sha256"]:
            return _DAMAGED
        roles = {role: RoleFloor(**floor) for role, floor in values["roles"].items()}
        return Floors(values["generation"], values["root_version"], roles, values["issued_s"], values["anchor"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return _DAMAGED
