"""Which execution provider this model is served with, and with what settings: remembered measurements, honestly told.

The providers are tried in children once per box (hardware.findings remembers); the model's own measurements come from
`edged tune`, or are made at the first load where the owner wants that. Asking for `cpu` by name asks for nothing that
must be proved first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edged.engine.options import EngineOptions
from edged.errors import HardwareError, ModelError
from edged.hardware.findings import Findings, find_out
from edged.hardware.selection import AUTO, Selection
from edged.hardware.selection import select as select_provider
from edged.hardware.trial_messages import CPU
from edged.hardware.tune import Goal, Setting
from edged.hardware.tune_table import Failure, Table, model_key, recall, record_failure
from edged.hardware.tuner import Bounds
from edged.hardware.tuning import Model, measure_model
from edged.store.folder import read_json_object

log = logging.getLogger(__name__)


def select(options: EngineOptions, tell: Callable[..., None], failures: Sequence[Failure] = ()) -> Selection:
    """The provider to load this model on, and its settings; `failures` of this very load are passed over.

    Raises ModelError when nothing usable is left, or `strict_provider` forbids what is.
    """
    tell("choosing the execution provider")
    folder = Path(options.folder)
    try:
        selection = _choose(options, folder, tell, failures)
    except HardwareError as error:
        raise ModelError(folder, "", str(error)) from error
    if options.threads:
        selection = replace(selection, setting=replace(selection.setting, threads=options.threads))
    return selection


def forget_not(options: EngineOptions, failure: Failure) -> None:
    """Keep that a provider failed with this model; choices pass it over until the model is measured again."""
    state_dir, folder = Path(options.state_dir), Path(options.folder)
    try:
        record_failure(state_dir, options.name, model_key(folder), find_out(state_dir).fingerprint, failure)
    except OSError as error:
        log.warning("the failure of %s cannot be kept: %s", failure.provider, error)


def _choose(options: EngineOptions, folder: Path, tell: Callable[..., None], failures: Sequence[Failure]) -> Selection:
    wanted = options.provider
    if wanted == CPU.key:
        return Selection(wanted, CPU, Setting(CPU.key), None, "as wanted", fell=False, passed_over=())
    state_dir = Path(options.state_dir)
    findings, key = find_out(state_dir), model_key(folder)
    table = recall(state_dir, key, findings.fingerprint)
    unknown = table is None and wanted == AUTO and (folder / "genai_config.json").is_file()
    if unknown and options.measure_at_load and _usable(findings) > 1:
        tell("measuring the providers, once")
        table = _measure(options, folder, findings)
    if failures:
        table = table or Table(options.name, key, findings.fingerprint, Goal.LATENCY, 0.0, ())
        table = replace(table, failures=(*table.failures, *failures))
    selection = select_provider(wanted, findings.providers, table, strict=options.strict_provider)
    level = logging.WARNING if selection.fell else logging.INFO
    log.log(level, "provider wanted=%s got=%s why=%r", wanted, selection.got.key, selection.why)
    return selection


def _usable(findings: Findings) -> int:
    return sum(report.usable for report in findings.providers)


def _measure(options: EngineOptions, folder: Path, findings: Findings) -> Table:
    """In children, and within half of what a load may take."""
    config = read_json_object(folder, "genai_config.json", "the model")
    half_s = options.load_timeout_s / 2
    bounds = Bounds(total_s=min(Bounds().total_s, half_s), trial_s=min(Bounds().trial_s, half_s))
    return measure_model(
        Model(options.name, folder, config), findings, Path(options.state_dir), Goal.LATENCY, bounds=bounds
    )


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
