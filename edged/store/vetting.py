"""What may come into the store: which files of a folder belong to a model, and that none of them is a program.

A model is data. What is left out is named to the owner; a program under a model file's name is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edged.errors import ModelError
from edged.store.digests import is_file_name
from edged.store.folder import unreadable
from edged.store.manifest import read_manifest
from edged.store.plain_manifest import is_plain, read_plain

MAX_FILES = 200
HEAD_BYTES = 64

_SUFFIXES = frozenset({".onnx", ".json", ".jinja", ".txt", ".model", ".tiktoken", ".md", ".toml"})
_PLAIN = frozenset({"LICENSE", "LICENCE", "NOTICE"})
_LFS = b"version https://git-lfs"
_PROGRAMS = (
    (b"\x7fELF", "a Linux program or library"),
    (b"MZ", "a Windows program"),
    (b"\xcf\xfa\xed\xfe", "a macOS program"),
    (b"\xca\xfe\xba\xbe", "a macOS program"),
    (b"#!", "a script"),
)


@dataclass(frozen=True, slots=True)
class Parts:
    """`kept` and `left_out` are names relative to the folder, sorted."""

    kept: tuple[str, ...]
    left_out: tuple[str, ...]


def belongs(name: str) -> bool:
    """Whether a file of that name is part of a model: graphs and their data, tokenizer, templates, papers."""
    base = name.rpartition("/")[2]
    is_data = ".onnx" in base and not base.endswith((".py", ".so", ".sh"))  # model.onnx.data, model.onnx_data_1
    return is_file_name(name) and (Path(base).suffix in _SUFFIXES or base in _PLAIN or is_data)


def split(names: Iterable[str]) -> Parts:
    """What of these belongs to a model, and what not."""
    all_names = sorted(names)
    kept = tuple(name for name in all_names if belongs(name))
    return Parts(kept, tuple(name for name in all_names if name not in kept))


def look_through(folder: Path) -> Parts:
    """The files of a folder that is offered. Links count as what they lead to, if that lies inside.

    Raises ModelError for too many files, a link to outside, and anything that is neither a file nor a folder.
    """
    names: list[str] = []
    try:
        real = folder.resolve(strict=True)
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if any(part.startswith(".") for part in name.split("/")) or path.is_dir():
                continue  # .git, .cache and their like: not offered
            if not path.resolve().is_relative_to(real):
                raise ModelError(folder, name, "is a link to outside the folder; put the file itself there")
            if not path.is_file():
                raise ModelError(folder, name, "is no regular file; a model is made of files alone")
            names.append(name)
            if len(names) > MAX_FILES:
                raise ModelError(folder, "", f"holds more than {MAX_FILES} files; give the model's own folder")
    except OSError as error:
        raise unreadable(folder, "", error) from error
    return split(names)


def check_model(folder: Path) -> None:
    """Whether the folder is a whole model: a language model, or a plain one with its edged.toml. Raises ModelError."""
    if is_plain(folder):
        read_plain(folder)
    else:
        read_manifest(folder)


def check_content(folder: Path) -> None:
    """The last look before a folder becomes a version: only plain files, no programs, and a model that is whole.

    Raises ModelError, naming the file and what is wrong with it.
    """
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            raise ModelError(folder, name, "is no regular file: refused")
        if not belongs(name):
            raise ModelError(folder, name, "is no part of a model: refused")
        _refuse_program(folder, name)
    check_model(folder)


def _refuse_program(folder: Path, name: str) -> None:
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            head = os.read(descriptor, HEAD_BYTES)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise unreadable(folder, name, error) from error
    if head.startswith(_LFS):
        raise ModelError(folder, name, "is a Git LFS pointer, not the file; run `git lfs pull` where it came from")
    for magic, what in _PROGRAMS:
        if head.startswith(magic):
            raise ModelError(folder, name, f"is {what}, under the name of a model's file: refused")
