"""The owner's notes on the models of a store: other names, and pins. Owns `STATE/models/library.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from edged.store.digests import is_name
from edged.store.disk_errors import disk_errors
from edged.store.durable import StoreError, make_folder, write_file
from edged.store.ownership import hand_over

NOTES_FILE = "library.json"
MAX_ALIASES = 100


@dataclass(frozen=True, slots=True)
class Notes:
    """`aliases`: other name to model. `pinned`: models that are neither removed nor replaced."""

    aliases: dict[str, str] = field(default_factory=dict)
    pinned: frozenset[str] = frozenset()

    def of(self, model: str) -> tuple[str, ...]:
        """The other names of a model, sorted."""
        return tuple(sorted(other for other, known in self.aliases.items() if known == model))


def read_notes(state: Path) -> Notes:
    """Raises StoreError for a file that is there but is no such notes."""
    path = state / "models" / NOTES_FILE
    try:
        raw = json.loads(path.read_bytes())
        aliases = {str(other): str(model) for other, model in raw["aliases"].items()}
        return Notes(aliases, frozenset(str(name) for name in raw["pinned"]))
    except (FileNotFoundError, NotADirectoryError):
        return Notes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: damaged; remove it, aliases and pins are then forgotten") from error


def write_notes(state: Path, notes: Notes) -> None:
    """Replaces the notes in one step. Raises StoreError."""
    text = json.dumps({"aliases": notes.aliases, "pinned": sorted(notes.pinned)}, indent=1)
    with disk_errors():
        make_folder(state / "models")
        write_file(state / "models" / NOTES_FILE, text.encode())
        hand_over(state)


def with_alias(notes: Notes, other: str, model: str) -> Notes:
    """`other` as one more name of `model`. Raises StoreError for what is no name, and for too many."""
    if not is_name(other):
        raise StoreError(f"{other[:80]!r} is no name: letters, digits, '.', '_', '-', at most 64")
    if len(notes.aliases) >= MAX_ALIASES and other not in notes.aliases:
        raise StoreError(f"there are {MAX_ALIASES} aliases already; take some away")
    return replace(notes, aliases={**notes.aliases, other: model})


def without_alias(notes: Notes, other: str) -> Notes:
    """Raises StoreError when there is no such alias."""
    if other not in notes.aliases:
        raise StoreError(f"{other} is no alias; the aliases are: {', '.join(sorted(notes.aliases)) or 'none'}")
    return replace(notes, aliases={one: model for one, model in notes.aliases.items() if one != other})
