"""The audit log: one line of JSON for each thing an admin had done. Owns `audit.log` and, when that is full, one older.

It is kept beside the journal, which is rotated by others; a disk that does not take the line is told to the journal,
which has the line in any case.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edged.serving.peer import Peer

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 2**20
MAX_DETAIL_CHARS = 500


class Audit:
    """Appends to `path`, mode 0600; never raises."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, op: str, peer: Peer, details: Mapping[str, Any]) -> None:
        """`op` is about to be done for `peer`. Call it before, so that what ends the daemon is told too."""
        told = json.dumps(details, default=str)[:MAX_DETAIL_CHARS]
        log.warning("audit op=%s %s details=%s", op, peer.label(), told)
        line: dict[str, str | int] = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "op": op}
        line |= {"key": peer.key} if peer.key else {"uid": peer.uid, "gid": peer.gid, "pid": peer.pid}
        try:
            self._append(json.dumps({**line, "details": told}) + "\n")
        except OSError as error:
            log.error("audit log not written: %s", error)

    def _append(self, line: str) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size > MAX_FILE_BYTES:
                self._path.rename(self._path.with_suffix(".log.1"))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(self._path, flags, 0o600), "a", encoding="utf-8") as out:
            out.write(line)
