"""The tables of measurements on disk, one per model and fingerprint, and the failures seen since.

Owner of `tune.json` in the state directory. Every change is read, made and written under a lock, aside and renamed, so
that the file is the old one or the new one whole. A file that cannot be read counts as empty: measuring again mends it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edged.hardware.state_file import locked, write_json
from edged.hardware.trial_messages import SliceRate
from edged.hardware.trial_verdict import Verdict
from edged.hardware.tune import Choice, Goal, Row, Setting, choose

FILE = "tune.json"
FORMAT = 1
MAX_TABLES = 64
"""The oldest are dropped beyond this: models come and go, the file does not grow."""

MAX_FAILURES = 32
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """A provider that was chosen and then failed while serving; `at_s` is Unix time."""

    provider: str
    reason: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Table:
    """What was measured for one model on one box. `load` is the box's load average when it began: a busy box lies."""

    model: str
    model_key: str
    fingerprint: str
    goal: Goal
    measured_at_s: float
    rows: tuple[Row, ...]
    left_out: str = ""
    load: float = 0.0
    failures: tuple[Failure, ...] = ()

    def choice(self, goal: Goal | None = None) -> Choice | None:
        """The best row for `goal` (default: the one measured for), leaving out providers that failed since."""
        return choose(self.rows, goal or self.goal, failed=[failure.provider for failure in self.failures])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the choice and its reason for those who read it there."""
        chosen = self.choice()
        return asdict(self) | {"choice": chosen and {"setting": asdict(chosen.row.setting), "why": chosen.why}}

    @staticmethod
    def from_dict(raw: Mapping[str, Any]) -> Table:
        """Raises KeyError, TypeError or ValueError on anything but what `to_dict` made."""
        plain = {name: value for name, value in raw.items() if name != "choice"}
        return Table(
            **{
                **plain,
                "goal": Goal(raw["goal"]),
                "rows": tuple(_row(row) for row in raw["rows"]),
                "failures": tuple(Failure(**failure) for failure in raw["failures"]),
            }
        )


def model_key(folder: Path) -> str:
    """A short name for the model's content that needs no reading of weights: its configuration, and names and sizes of
    its files. Independent of where the folder is. Raises OSError."""
    digest = hashlib.sha256()
    for path in sorted(file for file in folder.iterdir() if file.is_file()):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        if path.suffix == ".json" and path.stat().st_size < 1 << 20:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def read_tables(state_dir: Path) -> tuple[Table, ...]:
    """All tables, newest first; () when there is no file or it cannot be understood (which is logged)."""
    path = state_dir / FILE
    try:
        raw = json.loads(path.read_text("utf-8"))
        if raw["format"] != FORMAT:
            raise ValueError(f"format {raw['format']}, this version reads {FORMAT}")
        return tuple(Table.from_dict(table) for table in raw["tables"])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used and will be measured anew: %s", path, error)
        return ()


def recall(state_dir: Path, key: str, fingerprint: str) -> Table | None:
    """The table of this model on this very box; None when it was never measured, or on another fingerprint."""
    tables = (table for table in read_tables(state_dir) if table.model_key == key and table.fingerprint == fingerprint)
    return next(tables, None)


def remember(state_dir: Path, table: Table) -> None:
    """Keep `table`, in place of any other of its model. Raises OSError when the disk refuses."""

    def change(tables: Sequence[Table]) -> list[Table]:
        return [table, *(other for other in tables if other.model_key != table.model_key)]

    _change(state_dir, change)


def record_failure(state_dir: Path, model: str, key: str, fingerprint: str, failure: Failure) -> None:
    """Keep that a chosen provider failed while serving; choices pass it over until the model is measured again.

    A model that was never measured here gets a table without rows to keep it in.
    """

    def change(tables: Sequence[Table]) -> list[Table]:
        mine = [table for table in tables if table.model_key == key and table.fingerprint == fingerprint]
        table = mine[0] if mine else Table(model, key, fingerprint, Goal.LATENCY, failure.at_s, ())
        failures = (*table.failures, failure)[-MAX_FAILURES:]
        return [replace(table, failures=failures), *(other for other in tables if other.model_key != key)]

    _change(state_dir, change)


def _row(raw: Mapping[str, Any]) -> Row:
    setting = {**raw["setting"], "cores": tuple(raw["setting"]["cores"])}
    rates = tuple(SliceRate(**rate) for rate in raw["slices"])
    return Row(**{**raw, "setting": Setting(**setting), "verdict": Verdict(raw["verdict"]), "slices": rates})


def _change(state_dir: Path, change: Callable[[Sequence[Table]], list[Table]]) -> None:
    path = state_dir / FILE
    with locked(path):
        tables = change(read_tables(state_dir))[:MAX_TABLES]
        write_json(path, {"format": FORMAT, "tables": [table.to_dict() for table in tables]})
