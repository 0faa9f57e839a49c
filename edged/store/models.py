"""Where models are: installed ones in the store, the embedded ones inside the package, or a folder the owner names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edged.errors import ModelError
from edged.store.digests import is_name
from edged.store.notes import read_notes
from edged.store.plain_manifest import is_plain
from edged.store.slot_view import SlotView

_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model by the name clients use; `origin` is `embedded`, `store` or `folder`.

    `version` is the store's, and `folder` that version's own: what is active may change while the model runs.
    """

    name: str
    folder: Path
    origin: str
    version: str | None = None


def embedded_folder() -> Path:
    """The models that ship with edged: inside the installed package, or beside it in a source checkout."""
    packaged = _PACKAGE / "_models"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "models"


def installed(state: Path) -> list[FoundModel]:
    """Every model that can be named: the store's active versions first, then the embedded ones they do not replace."""
    found: dict[str, FoundModel] = {}
    for model in [*_in_store(state), *_embedded()]:
        if (model.folder / "genai_config.json").is_file() or is_plain(model.folder):
            found.setdefault(model.name, model)
    return list(found.values())


def find_model(wanted: str, state: Path) -> FoundModel:
    """The model of that name or alias, or the folder of that path. Raises ModelError for what is not installed."""
    if "/" in wanted or wanted in (".", ".."):
        folder = Path(wanted).expanduser().absolute()
        name = re.sub(r"[^A-Za-z0-9._-]", "-", folder.name)[:64] or "model"
        return FoundModel(name, folder, "folder")
    known = installed(state)
    by_name = {model.name: model for model in known}
    found = by_name.get(wanted) or by_name.get(read_notes(state).aliases.get(wanted, ""))
    if found:
        return found
    names = ", ".join(model.name for model in known) or "none"
    raise ModelError(
        state / "models" / wanted,
        "",
        f"no model of that name is installed (installed: {names}); give a name or a path, or `edged pull` it",
    )


def _in_store(state: Path) -> Iterator[FoundModel]:
    for name in _names(state / "models"):
        slots = SlotView(state, name)
        version = slots.active
        if version is not None:
            yield FoundModel(name, slots.path(version), "store", version)


def _embedded() -> Iterator[FoundModel]:
    for name in _names(embedded_folder()):
        yield FoundModel(name, embedded_folder() / name, "embedded")


def _names(base: Path) -> list[str]:
    return sorted(path.name for path in base.iterdir() if is_name(path.name)) if base.is_dir() else []
