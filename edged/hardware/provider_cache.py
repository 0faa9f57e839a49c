"""The provider reports on disk, for one fingerprint: proving takes seconds and changes only when the box does."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from edged.hardware.providers import ProviderReport
from edged.hardware.state_file import locked, write_json

FILE = "providers.json"
FORMAT = 1
log = logging.getLogger(__name__)


def recall_reports(state_dir: Path, fingerprint: str) -> tuple[ProviderReport, ...] | None:
    """What was found on this very box; None when nothing was, on another fingerprint, or the file cannot be read."""
    path = state_dir / FILE
    try:
        raw = json.loads(path.read_text("utf-8"))
        if raw["format"] != FORMAT or raw["fingerprint"] != fingerprint:
            return None
        return tuple(ProviderReport.from_dict(report) for report in raw["reports"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used, providers are tried anew: %s", path, error)
        return None


def remember_reports(state_dir: Path, fingerprint: str, reports: Sequence[ProviderReport]) -> None:
    """Keep them in place of what was there. Raises OSError when the disk refuses."""
    path = state_dir / FILE
    with locked(path):
        raw = {"format": FORMAT, "fingerprint": fingerprint, "reports": [report.to_dict() for report in reports]}
        write_json(path, raw)
