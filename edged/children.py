"""How edged starts its own modules as processes: this very copy of edged, whatever lies in the current directory."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def command(module: str, *arguments: str) -> list[str]:
    """The command line of `python -m module`; -P keeps the current directory out of the import path."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(**more: str) -> dict[str, str]:
    """This process's environment and `more`, in which the child finds the copy of edged that its parent runs."""
    ours = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (ours, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, **more}
