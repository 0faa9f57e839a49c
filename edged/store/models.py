"""Where models are: installed ones in the store, the embedded ones inside the package, or a folder the owner names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edged.errors import ModelError

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model by the name clients use; `origin` is `embedded`, `store` or `folder`."""

    name: str
    folder: Path
    origin: str


def embedded_folder() -> Path:
    """The models that ship with edged: inside the installed package, or beside it in a source checkout."""
    packaged = _PACKAGE / "_models"
    return packaged if packaged.is_dir() else _PACKAGE.parent / "models"


def installed(state: Path) -> list[FoundModel]:
    """Every model that can be named: the store's first, then the embedded ones it does not replace."""
    found: dict[str, FoundModel] = {}
    for origin, base, inner in (("store", state / "models", "active"), ("embedded", embedded_folder(), "")):
        for folder in sorted(base.iterdir()) if base.is_dir() else []:
            inside = folder / inner if inner else folder
            if _NAME.match(folder.name) and (inside / "genai_config.json").is_file():
                found.setdefault(folder.name, FoundModel(folder.name, inside, origin))
    return list(found.values())


def find_model(wanted: str, state: Path) -> FoundModel:
    """The model of that name, or the folder of that path. Raises ModelError for a name that is not installed."""
    if "/" in wanted or wanted in (".", ".."):
        folder = Path(wanted).expanduser().absolute()
        name = re.sub(r"[^A-Za-z0-9._-]", "-", folder.name)[:64] or "model"
        return FoundModel(name, folder, "folder")
    known = installed(state)
    for model in known:
        if model.name == wanted:
            return model
    names = ", ".join(model.name for model in known) or "none"
    raise ModelError(
        state / "models" / wanted, "", f"no model of that name is installed (installed: {names}); give a name or a path"
    )
