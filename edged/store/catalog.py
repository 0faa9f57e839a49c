"""The public models that edged knows by name: what catalog.toml says, checked for shape, and nothing fetched."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from edged.errors import OwnerError
from edged.store.models import embedded_folder

CATALOG_FILE = "catalog.toml"
SCHEMA = 1

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]{0,40}$")]
Repo = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")]
Revision = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{40}|main)$")]
Folder = Annotated[
    str, StringConstraints(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*){0,5})?$")
]
Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Variant(_Row):
    """One build of a model: a folder of a repository of the hub. `about_mb` (10^6 bytes) 0: not known before a look.

    `providers` are edged's keys of the execution providers that it is made for, the likeliest first.
    """

    name: Name
    repo: Repo
    revision: Revision
    folder: Folder
    precision: Text
    providers: Annotated[list[Name], Field(min_length=1, max_length=8)]
    about_mb: Annotated[int, Field(ge=0, le=1_000_000)]
    kv_bytes_per_token: Annotated[int, Field(gt=0, le=2**30)]

    @property
    def about_bytes(self) -> int:
        return self.about_mb * 1_000_000


class CatalogModel(_Row):
    """One model. Without variants `note` says why it cannot be pulled. `longrope`: served up to 4096 tokens."""

    name: Name
    aliases: list[Name] = Field(default=[], max_length=8)
    title: Text
    licence: Text
    kind: Literal["text", "vision-language"]
    context_tokens: Annotated[int, Field(gt=0, le=2**31 - 1)]
    longrope: bool = False
    note: str = ""
    variant: list[Variant] = Field(default=[], max_length=8)

    @model_validator(mode="after")
    def _is_whole(self) -> CatalogModel:
        names = [variant.name for variant in self.variant]
        if len(set(names)) != len(names):
            raise ValueError(f"{self.name}: two variants have one name")
        if not names and not self.note:
            raise ValueError(f"{self.name}: has neither a variant nor a note that says why")
        return self


class Catalog(_Row):
    """Every model, under names that no two share. `written` is the day on which the facts were looked up."""

    schema_: Literal[1] = Field(alias="schema")
    written: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    model: Annotated[list[CatalogModel], Field(max_length=500)]

    @model_validator(mode="after")
    def _has_one_model_a_name(self) -> Catalog:
        names = [name for model in self.model for name in (model.name, *model.aliases)]
        double = sorted({name for name in names if names.count(name) > 1})
        if double:
            raise ValueError(f"the name {double[0]!r} is given twice")
        return self

    def find(self, name: str) -> CatalogModel:
        """The model of that name or alias, in any case. Raises OwnerError listing what there is."""
        wanted = name.lower()
        for model in self.model:
            if wanted in (model.name, *model.aliases):
                return model
        known = ", ".join(model.name for model in self.model)
        raise OwnerError(
            f"the catalog knows no model {name[:80]!r}; it knows {known}; or give the repository: OWNER/NAME"
        )


def read_catalog(path: Path | None = None) -> Catalog:
    """The catalog that ships with edged, or another file. Raises OwnerError naming file and row."""
    path = path or embedded_folder() / CATALOG_FILE
    try:
        return Catalog.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError as error:
        raise OwnerError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OwnerError(f"{path}: not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OwnerError(f"{path}: {where}: {first['msg']}") from error
