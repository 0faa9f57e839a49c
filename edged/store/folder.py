"""Files inside a model folder: every name that a model's own files give is checked here before it is opened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edged.errors import ModelError

MAX_NAME_CHARS = 255
MAX_JSON_BYTES = 4 * 1024 * 1024
MAX_JSON_DEPTH = 16
MAX_FILES = 1_000


def file_size(folder: Path, file: str, named_by: str) -> int:
    """Bytes of the regular file `file` (a relative name, as `named_by` gives it), which must lie inside `folder`.

    Raises ModelError for an absolute name, `..`, a link that leaves the folder, and anything missing or not a file.
    """
    parts = file.split("/")
    is_plain = file.isprintable() and "\\" not in file and ":" not in file and not {"", ".", ".."} & set(parts)
    if not is_plain or len(file) > MAX_NAME_CHARS:
        raise ModelError(
            folder, "", f"{named_by} names {file[:80]!r}, which is no plain path inside the folder: refused"
        )
    path = folder / file
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.resolve(strict=True)):
            raise ModelError(folder, file, "is a link to outside the model's folder; put the file itself there")
        if not real.is_file():
            raise ModelError(folder, file, "is not a regular file; copy the model again")
        return real.stat().st_size
    except FileNotFoundError as error:
        raise ModelError(folder, file, f"is missing ({named_by} names it); copy the model again") from error
    except RuntimeError as error:
        raise ModelError(folder, file, "is a link that leads back to itself; put the file itself there") from error
    except OSError as error:
        raise unreadable(folder, file, error) from error


def list_files(folder: Path) -> tuple[str, ...]:
    """Names of all regular files below `folder`, relative and sorted. Raises ModelError when there are too many."""
    names: list[str] = []
    try:
        for number, path in enumerate(folder.rglob("*")):
            if number >= MAX_FILES:
                raise ModelError(folder, "", f"holds more than {MAX_FILES} files; a model has a folder of its own")
            if path.is_file():
                names.append(path.relative_to(folder).as_posix())
    except OSError as error:
        raise unreadable(folder, "", error) from error
    return tuple(sorted(names))


def read_json_object(folder: Path, file: str, named_by: str) -> dict[str, Any]:
    """The object in `folder/file`. Raises ModelError when it is missing, too large or deep, or not one JSON object.

    Keys given twice are refused: two readers might each take a different one.
    """
    file_size(folder, file, named_by)
    try:
        with (folder / file).open("rb") as opened:
            data = opened.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise unreadable(folder, file, error) from error
    if len(data) > MAX_JSON_BYTES:
        raise ModelError(folder, file, f"is longer than the {MAX_JSON_BYTES} bytes that are read")
    try:
        text = data.decode("utf-8-sig")
        found = json.loads(text, object_pairs_hook=_object_without_doubles, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ModelError(folder, file, f"is nested more than {MAX_JSON_DEPTH} deep") from error
    except ValueError as error:
        raise ModelError(folder, file, f"is not valid JSON ({error}); copy the model again") from error
    if not isinstance(found, dict):
        raise ModelError(folder, file, "holds no JSON object; copy the model again")
    if _depth_exceeds(found, MAX_JSON_DEPTH):
        raise ModelError(folder, file, f"is nested more than {MAX_JSON_DEPTH} deep")
    return found


def check_text_ends(folder: Path, file: str, named_by: str) -> None:
    """A cheap test that a large JSON object is whole: its first and last characters. Raises ModelError."""
    size = file_size(folder, file, named_by)
    try:
        with (folder / file).open("rb") as opened:
            head = opened.read(64)
            opened.seek(max(0, size - 64))
            tail = opened.read(64)
    except OSError as error:
        raise unreadable(folder, file, error) from error
    if not (head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") and tail.rstrip().endswith(b"}")):
        raise ModelError(folder, file, "is cut short or no JSON object; copy the model again")


def unreadable(folder: Path, file: str, error: OSError) -> ModelError:
    """The system refused; its own words without the path, which may not travel to clients."""
    return ModelError(folder, file, f"cannot be read ({error.strerror or 'no reason given'}); check its owner and mode")


def _object_without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"the number {text}")


def _depth_exceeds(value: object, left: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return left == 0 or any(_depth_exceeds(item, left - 1) for item in inner)
