"""The shipped model, loaded once into this process the way the engine does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.config import Settings
from edged.daemon import engine_options
from edged.engine.load import Loaded, load
from edged.engine.options import EngineOptions
from edged.protocol import pulse
from edged.store.models import FoundModel
from tests.integration.raw import nano_folder


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """A backend that announces its calls on a pulse nobody reads; reads prompts 8 to 64 tokens at a time."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    state: Path = tmp_path_factory.mktemp("state")
    settings = Settings(
        provider="cpu", threads=1, prefill_slice_ms=10, memory_reserve_bytes=2**26, state_dir=str(state)
    )
    options = EngineOptions(**engine_options(settings, FoundModel("nano", nano_folder(), "folder")))
    fd = pulse.create()
    yield load(options, pulse.PulseWriter(fd), lambda phase, **more: None)
    os.close(fd)
