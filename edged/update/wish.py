"""A wish for the updater to run now, left by the daemon, which has no network: one small file that the updater takes.

`edged-update.path` starts the updater when the file appears; in a user's run the daemon starts it itself.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from edged.store.durable import make_folder, write_file

FILE = "wanted"
Action = Literal["check", "apply"]


@dataclass(frozen=True, slots=True)
class Wish:
    """`model`: whose updates; empty: the owner's choice. `id` comes back in the report, to tell whose run it is of."""

    action: Action = "apply"
    id: str = ""
    model: str = ""


def leave(folder: Path, wish: Wish) -> None:
    """Raises OSError."""
    make_folder(folder)
    write_file(folder / FILE, json.dumps(asdict(wish)).encode())


def waits(folder: Path) -> bool:
    """Whether a wish was left that nobody has taken."""
    return (folder / FILE).exists()


def take(folder: Path) -> Wish | None:
    """The wish, which is then gone; one that cannot be read (made by hand, say) asks for an update. Raises OSError."""
    path = folder / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    path.unlink()
    with contextlib.suppress(ValueError, TypeError, AttributeError):
        found = json.loads(data)
        return Wish("check" if found["action"] == "check" else "apply", str(found["id"])[:64], str(found["model"]))
    return Wish()
