"""A hub of one repository, and a box to pull into."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edged.store.models import embedded_folder
from tests.unit.pull.hub_server import HubServer, serving

REPO = "microsoft/Phi-3.5-mini-instruct-onnx"
FOLDER = "cpu_and_mobile/cpu-int4-awq-block-128-acc-level-4"


@dataclass(frozen=True)
class World:
    hub: HubServer
    state: Path
    source: Path  # the variant's folder in the repository; its files may be changed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    source = tmp_path / "repo" / FOLDER
    shutil.copytree(embedded_folder() / "nano", source)
    (source / "configuration_phi3.py").write_text("print('never fetched')\n")
    with serving(tmp_path / "repo", REPO) as hub:
        yield World(hub, tmp_path / "state", source)
