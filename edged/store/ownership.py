"""Whose the files of a store are: the service's, also when root put them there."""

from __future__ import annotations

import os
from pathlib import Path


def hand_over(state: Path) -> None:
    """Gives everything below `state/models` to the owner of `state`; only root does anything here. Raises OSError."""
    models = state / "models"
    if os.geteuid() != 0 or not models.is_dir():
        return
    owner = state.stat()
    for path in (models, *models.rglob("*")):
        found = path.lstat()
        if (found.st_uid, found.st_gid) != (owner.st_uid, owner.st_gid):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
