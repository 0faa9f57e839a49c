"""Small real models for these tests, made by the tool that ships; each test changes its own copy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "make_synthetic.py"


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`make_model("tiny", "--layers", "1")` → a folder, made once per session for each set of arguments."""
    made: dict[tuple[str, ...], Path] = {}

    def make(*args: str) -> Path:
        if args not in made:
            out = tmp_path_factory.mktemp("models") / args[0]
            command = [sys.executable, str(TOOL), args[0], str(out), "--quiet", *args[1:]]
            subprocess.run(command, check=True, capture_output=True, timeout=120)
            made[args] = out
        return made[args]

    return make


@pytest.fixture
def model(make_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of `tiny` to spoil."""
    return Path(shutil.copytree(make_model("tiny"), tmp_path / "model"))


@pytest.fixture
def edit_config(model: Path) -> Callable[[Callable[[dict[str, Any]], object]], None]:
    """Changes the copy's genai_config.json in place."""

    def edit(change: Callable[[dict[str, Any]], object]) -> None:
        path = model / "genai_config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    return edit
