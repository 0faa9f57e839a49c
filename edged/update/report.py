"""The updater's account of itself: one small JSON file that says where it stands or how it ended.

Owns `STATE/update/status.json`. Writing it must never stop an update: a full disk is passed over.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edged.store.durable import make_folder, write_file

FILE = "status.json"
STEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """`phase`: checking, available, downloading, verifying, staged, up_to_date, waiting, failed. Bytes: of model files.

    `code` and `message` say why it failed or waits; `passed` lists releases that are not for this device now;
    `asked` names the wish that the run fulfils.
    """

    phase: str = "never"
    model: str = ""
    active: str = ""
    version: str = ""
    release: int = 0
    code: str = ""
    message: str = ""
    bytes_done: int = 0
    bytes_total: int = 0
    bytes_saved: int = 0
    passed: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    clock_behind_s: int = 0
    metadata: dict[str, int] = field(default_factory=dict)
    at_s: int = 0
    checked_s: int = 0
    asked: str = ""


class Reporter:
    """Keeps the newest report and writes it at each change of phase, and now and then while bytes flow."""

    def __init__(
        self,
        folder: Path,
        model: str,
        now_s: Callable[[], float],
        tell: Callable[[Report], None] = lambda _: None,
        asked: str = "",
    ) -> None:
        self._path, self._now_s, self._tell = folder / FILE, now_s, tell
        self._written_s = 0.0
        self.report = Report(model=model, asked=asked, checked_s=read_report(folder).checked_s)

    def set(self, **changes: Any) -> None:
        """Changes the report and writes it."""
        self.report = replace(self.report, **changes, at_s=int(self._now_s()))
        self._written_s = time.monotonic()
        with contextlib.suppress(OSError):
            make_folder(self._path.parent)
            write_file(self._path, json.dumps(asdict(self.report)).encode())
        self._tell(self.report)

    def progress(self, bytes_done: int) -> None:
        """Told of each piece; writes at most once in `STEP_S`."""
        if time.monotonic() - self._written_s >= STEP_S:
            self.set(bytes_done=bytes_done)


def read_report(folder: Path) -> Report:
    """The last report; an empty one when there is none that can be read."""
    try:
        values = json.loads((folder / FILE).read_bytes())
        known = {name: values[name] for name in Report.__dataclass_fields__ if name in values}
        return Report(**{**known, "passed": tuple(known.get("passed", ())), "notes": tuple(known.get("notes", ()))})
    except (OSError, ValueError, TypeError, AttributeError):
        return Report()
