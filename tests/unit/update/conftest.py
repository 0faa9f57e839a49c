"""Two small models that differ in their weights only, a publisher, and a device that runs the first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from signing import Device, Publisher

TOOL = Path(__file__).parents[3] / "tools" / "make_synthetic.py"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three folders of the same shape."""
    base = tmp_path_factory.mktemp("models")
    made = []
    for seed in ("1", "2", "3"):
        command = [sys.executable, str(TOOL), "tiny", str(base / seed), "--quiet", "--layers", "1", "--seed", seed]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        made.append(base / seed)
    return made


@pytest.fixture(scope="session")
def published(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    publisher = Publisher(tmp_path_factory.mktemp("repository") / "r")
    publisher.release(models[0], "1.0", 1)
    return publisher


@pytest.fixture
def publisher(published: Publisher, tmp_path: Path) -> Publisher:
    """A repository of one release that the test may change, with keys of its own."""
    return published.copied(tmp_path / "repository")


@pytest.fixture
def device(publisher: Publisher, tmp_path: Path) -> Device:
    """Runs release 1."""
    made = Device(tmp_path / "device", publisher)
    made.take()
    return made
