"""What the key holders say of one release of a model: its files, what it needs, how to test it, who gets it and when.

A bundle is a signed target, `<model>/<release>.bundle.json`; the files it names are targets of their own,
`<model>/<version>/<file>`. It travels with the model: a staged version holds it as `edged-bundle.json`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from edged.errors import ModelError
from edged.store.digests import MAX_FILES, FileDigest, is_digest, is_file_name, is_name
from edged.store.genai_keys import CONFIG_FILE
from edged.update.errors import Untrusted

BUNDLE_FILE = "edged-bundle.json"
MAX_BUNDLE_BYTES = 1 << 20
MAX_COUNT = 2**40
_TARGET = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})/([0-9]{1,12})\.bundle\.json")


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError("letters, digits, '.', '_', '-', at most 64, and no name of the store's own")
    return text


def _file_name(text: str) -> str:
    if not is_file_name(text) or text == BUNDLE_FILE:
        raise ValueError("a plain relative file name")
    return text


def _digest(text: str) -> str:
    if not is_digest(text):
        raise ValueError("64 lower-case hexadecimal digits")
    return text


Name = Annotated[str, AfterValidator(_name)]
FileName = Annotated[str, AfterValidator(_file_name)]
Digest = Annotated[str, AfterValidator(_digest)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Share = Annotated[float, Field(ge=0, le=1)]
Words = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=64)], ...], Field(max_length=64)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class File(Strict):
    sha256: Digest
    length_bytes: Count


class Golden(Strict):
    """A question and the answer recorded on a reference box with temperature 0.

    `chat`: asked as a user's message, through the model's chat template; else the prompt goes in as it is.
    `same_share` of the answer's characters, from its start, must come out again: 1 is all of them. Other processors
    round otherwise, so a text may part from the recorded one after a while and still be right.
    """

    prompt: Annotated[str, Field(min_length=1, max_length=16_384)]
    max_tokens: Annotated[int, Field(ge=1, le=1024)]
    answer: Annotated[str, Field(max_length=16_384)]
    same_share: Share = 1.0
    chat: bool = True


class Needs(Strict):
    """What a device must have. Empty lists: anything goes. `edged` is the lowest version, as numbers with dots."""

    edged: Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$")] = "0"
    architectures: Words = ()
    providers: Words = ()
    memory_bytes: Count = 0
    kv_bytes_per_token: Count = 0


class Rollout(Strict):
    """`percent` of the devices, 0 to 100; `groups` empty: all; `not_before_s` in Unix time."""

    percent: Annotated[float, Field(ge=0, le=100)] = 100.0
    groups: Words = ()
    not_before_s: Count = 0


class Bundle(Strict):
    """`release` counts up for each model and never down; `version` is for people and names the folder."""

    format: Literal[1]
    model: Name
    version: Name
    release: Annotated[int, Field(ge=1, le=10**12 - 1)]
    files: Annotated[dict[FileName, File], Field(min_length=1, max_length=MAX_FILES - 1)]
    needs: Needs = Needs()
    golden: Annotated[tuple[Golden, ...], Field(max_length=64)] = ()
    rollout: Rollout = Rollout()

    @model_validator(mode="after")
    def _is_a_model(self) -> Bundle:
        if CONFIG_FILE not in self.files:
            raise ValueError(f"files: {CONFIG_FILE} is missing")
        return self

    @property
    def size_bytes(self) -> int:
        return sum(file.length_bytes for file in self.files.values())

    def digests(self) -> dict[str, FileDigest]:
        """The model's files, without the bundle itself."""
        return {name: FileDigest(file.sha256, file.length_bytes) for name, file in self.files.items()}

    def target(self, file: str) -> str:
        """The path of one of its files in the repository."""
        return f"{self.model}/{self.version}/{file}"


def parse_bundle(data: bytes, target: str) -> Bundle:
    """The bundle in `data`, which came as `target`. Raises Untrusted when it is none, or one of another name."""
    match = bundle_target(target)
    try:
        bundle = Bundle.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step)[:60] for step in first["loc"])
        raise Untrusted(f"{target} is no bundle: {where}: {first['msg']}") from None
    if match is None or (bundle.model, bundle.release) != match:
        raise Untrusted(f"{target} holds the bundle of {bundle.model} release {bundle.release}")
    return bundle


def bundle_target(path: str) -> tuple[str, int] | None:
    """The model and release that the path of a bundle names; None for other targets."""
    match = _TARGET.fullmatch(path)
    return (match[1], int(match[2])) if match and match[2] == str(int(match[2])) else None


def target_of(model: str, release: int) -> str:
    """The other way round."""
    return f"{model}/{release}.bundle.json"


def read_bundle(folder: Path, sha256: str | None = None) -> Bundle:
    """The bundle that a staged version holds; `sha256` is what it had when it was staged. Raises ModelError."""
    try:
        with (folder / BUNDLE_FILE).open("rb") as opened:
            data = opened.read(MAX_BUNDLE_BYTES + 1)
    except OSError as error:
        raise ModelError(folder, BUNDLE_FILE, f"cannot be read: {error.strerror}") from error
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(folder, BUNDLE_FILE, "changed since it was staged; stage the version again")
    try:
        return Bundle.model_validate_json(data)
    except ValidationError as error:
        raise ModelError(folder, BUNDLE_FILE, f"is no bundle: {error.errors()[0]['msg']}") from None
