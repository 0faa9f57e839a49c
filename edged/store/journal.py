"""What was done to one model's slots, in order: lines that each prove themselves, in a file that only grows.

Owns `STATE/models/<name>/.journal`. A line that was cut off by a power cut fails its checksum and is skipped; the next
one starts with a line break of its own. From time to time the file is written anew with its last lines.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edged.store.durable import sync_folder, write_all, write_file

FILE = ".journal"
MAX_LINES = 400
KEPT_LINES = 200
MAX_BYTES = 1 << 20
MAX_REASON = 300

Event = Literal["staged", "activate", "roll_back", "commit", "refuse", "forgive", "discard"]
EVENTS: frozenset[str] = frozenset({"staged", "activate", "roll_back", "commit", "refuse", "forgive", "discard"})


@dataclass(frozen=True, slots=True)
class Entry:
    """`replaced` is the version that was active before (activate, roll_back); `release` counts up per model.

    `digest` is the SHA-256 of the signed description of a staged version.
    `at_s` is wall-clock time, for people only.
    """

    event: str
    version: str
    release: int = 0
    replaced: str = ""
    reason: str = ""
    at_s: int = 0
    digest: str = ""


class Journal:
    """`now_s` gives wall-clock seconds."""

    def __init__(self, folder: Path, now_s: Callable[[], float]) -> None:
        self._path = folder / FILE
        self._now_s = now_s

    def read(self) -> list[Entry]:
        """Every line that proves itself, oldest first. Raises OSError when the file is there but cannot be read."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return []
        try:
            size = os.fstat(descriptor).st_size
            data = os.pread(descriptor, MAX_BYTES, max(0, size - MAX_BYTES))
        finally:
            os.close(descriptor)
        return [entry for line in data.split(b"\n") if (entry := _parse(line)) is not None]

    def note(
        self, event: Event, version: str, *, release: int = 0, replaced: str = "", reason: str = "", digest: str = ""
    ) -> None:
        """Adds one line and makes it durable. Raises OSError; the line is then there, or it is not."""
        self._shorten()
        entry = Entry(event, version, release, replaced, reason[:MAX_REASON], int(self._now_s()), digest)
        is_new = not self._path.exists()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o644)
        try:
            write_all(descriptor, b"\n" + _line(entry))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._path.parent)

    def _shorten(self) -> None:
        entries = self.read()
        if len(entries) > MAX_LINES:
            kept = entries[-KEPT_LINES:]
            staged = {entry.version: entry for entry in entries if entry.event == "staged"}
            lasting = [*list(staged.values())[-KEPT_LINES:], *list(refused(entries).values())[-KEPT_LINES:]]
            lines = dict.fromkeys(_line(entry) for entry in [*lasting, *kept])
            write_file(self._path, b"\n".join(lines) + b"\n")


def refused(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Versions that failed here and are not to be tried again, each with its newest refusal."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.event == "refuse":
            found[entry.version] = entry
        elif entry.event == "forgive":
            found.pop(entry.version, None)
    return found


def uncommitted(entries: Iterable[Entry]) -> Entry | None:
    """The activation that has not proved itself yet, if the last one has not."""
    pending: Entry | None = None
    for entry in entries:
        if entry.event == "activate":
            pending = entry
        elif entry.event == "roll_back" or (entry.event == "commit" and pending and entry.version == pending.version):
            pending = None
    return pending


def _line(entry: Entry) -> bytes:
    text = json.dumps({key: value for key, value in asdict(entry).items() if value}, sort_keys=True).encode()
    return b"%08x %s" % (zlib.crc32(text), text)


def _parse(line: bytes) -> Entry | None:
    checksum, _, text = line.partition(b" ")
    if len(checksum) != 8 or checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        values: dict[str, Any] = json.loads(text)
        entry = Entry(**values)
    except (ValueError, TypeError):
        return None
    texts = (entry.event, entry.version, entry.replaced, entry.reason, entry.digest)
    is_sound = all(isinstance(text, str) for text in texts) and isinstance(entry.release, int)
    return entry if is_sound and entry.event in EVENTS else None
