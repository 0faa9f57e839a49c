"""Which execution provider this model is served with, and with what settings: remembered measurements, honestly told.

The providers are tried in children once per box (hardware.findings remembers); the model's own measurements come from
`edged tune`. Asking for `cpu` by name asks for nothing that must be proved first.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from edged.hardware.findings import find_out
from edged.hardware.selection import Selection, select
from edged.hardware.trial_messages import CPU
from edged.hardware.tune import Setting
from edged.hardware.tune_table import model_key, recall

log = logging.getLogger(__name__)


def choose(folder: Path, wanted: str, state_dir: Path, *, strict: bool) -> Selection:
    """Choose for one model. Raises HardwareError when nothing usable is left, or `strict` forbids what is."""
    if wanted == CPU.key:
        return Selection(wanted, CPU, Setting(CPU.key), None, "as wanted", fell=False, passed_over=())
    findings = find_out(state_dir)
    table = recall(state_dir, model_key(folder), findings.fingerprint)
    selection = select(wanted, findings.providers, table, strict=strict)
    level = logging.WARNING if selection.fell else logging.INFO
    log.log(level, "provider wanted=%s got=%s why=%r", wanted, selection.got.key, selection.why)
    return selection


def selection_map(selection: Selection) -> dict[str, Any]:
    """As status shows it: what was wanted, what it got, why, and what was passed over."""
    return {
        "wanted": selection.wanted,
        "got": selection.got.key,
        "setting": str(selection.setting),
        "why": selection.why,
        "fell_back": selection.fell,
        "passed_over": [{"provider": provider, "reason": reason} for provider, reason in selection.passed_over],
    }
