"""Which provider is blamed for what."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edged.config import Settings
from edged.daemon import engine_options
from edged.engine.announced import AnnouncedBackend
from edged.engine.fallback import take_blame
from edged.engine.options import EngineOptions
from edged.engine.pace import Pace
from edged.errors import Unsupported
from edged.hardware.findings import find_out
from edged.hardware.tune_table import model_key, recall
from edged.protocol import pulse
from edged.store.models import FoundModel


def options(state: Path, model: Path, **own: Any) -> EngineOptions:
    settings = Settings.model_validate({"state_dir": str(state)})
    return EngineOptions(**{**engine_options(settings, FoundModel("m", model, "folder")), **own})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "genai_config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(("provider", "kept"), [("openvino-cpu", ["openvino-cpu"]), ("cpu", []), ("", [])])
def test_what_the_front_saw_is_kept_of_any_provider_but_the_cpu(
    tmp_path: Path, model: Path, provider: str, kept: list[str]
) -> None:
    found = find_out(tmp_path, examine_providers=lambda *_: ())
    take_blame(options(tmp_path, model, blamed_provider=provider, blamed_reason="signal SIGSEGV"))
    table = recall(tmp_path, model_key(model), found.fingerprint)
    assert [failure.provider for failure in (table.failures if table else ())] == kept


class Moody:
    """A backend whose calls raise what they are told to."""

    info = None

    def __init__(self) -> None:
        self.mood: Exception | None = None

    def prefill(self, *_: object) -> None:
        if self.mood is not None:
            raise self.mood


def test_failures_in_a_row_are_counted_refusals_are_not() -> None:
    fd = pulse.create()
    moody = Moody()
    backend = AnnouncedBackend(moody, pulse.PulseWriter(fd), Pace(0.1))  # type: ignore[arg-type]
    os.close(fd)
    for mood, count in ((RuntimeError(), 1), (RuntimeError(), 2), (Unsupported("no"), 2), (None, 0)):
        moody.mood = mood
        if mood is None:
            backend.prefill(None, [1])  # type: ignore[arg-type]
        else:
            with pytest.raises(type(mood)):
                backend.prefill(None, [1])  # type: ignore[arg-type]
        assert backend.failures_in_a_row == count
