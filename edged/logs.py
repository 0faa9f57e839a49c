"""Logging for daemon and engine: one line per event, to stderr; journald adds time and unit. Never prompt text."""

from __future__ import annotations

import json
import logging
import os
import sys

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_JOURNAL = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Text(logging.Formatter):
    """Plain lines; under journald with the `<N>` priority in front of each, also of a stack trace's lines."""

    def __init__(self) -> None:
        self._journal = bool(os.environ.get("JOURNAL_STREAM"))
        super().__init__("%(message)s" if self._journal else "%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if not self._journal:
            return text
        prefix = f"<{_JOURNAL.get(record.levelno, 6)}>"
        return prefix + text.replace("\n", f"\n{prefix}")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def set_up(level: str, form: str) -> None:
    """Log to stderr at `level` (debug, info, warning, error), as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
