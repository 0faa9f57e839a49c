"""Models of a store as the owner handles them: installed whole, verified, removed. The versions belong to slots.py."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from edged.errors import ModelError
from edged.store.digests import FileDigest, extra_files, hash_file
from edged.store.disk_errors import disk_errors
from edged.store.durable import StoreError
from edged.store.folder import unreadable
from edged.store.notes import read_notes, write_notes
from edged.store.origin import Origin, drop_origins, read_origin, write_origin
from edged.store.ownership import hand_over
from edged.store.slot_files import used_bytes
from edged.store.slot_view import SlotView
from edged.store.slots import Slots
from edged.store.vetting import check_content

MEND = "pull or import the model again"

Beat = Callable[[int], None]


def install(state: Path, name: str, version: str, origin: Origin, beat: Beat | None = None) -> Origin:
    """Turns what lies in the staging folder into the active version: looked through, hashed, fsynced, renamed.

    The version before it stays on disk as `previous`, older ones go. `origin.files` may hold digests that are known
    already; `beat` is told of each piece that is hashed for the others.
    Raises ModelError for a folder that is no sound model, StoreError when the store or the disk refuses; what was
    active before then still is.
    """
    slots = Slots(state, name)
    if name in read_notes(state).pinned and slots.active not in (None, version):
        raise StoreError(f"{name} is pinned to {slots.active}; `edged models unpin {name}` first")
    with disk_errors():
        aside = slots.staging(version)
        if any(aside.iterdir()) or version not in slots.versions():
            check_content(aside)
            names = [path.relative_to(aside).as_posix() for path in sorted(aside.rglob("*")) if path.is_file()]
            digests = {name: origin.files.get(name) or hash_file(aside / name, beat) for name in names}
            origin = replace(origin, files=digests)
            slots.stage(version, origin.files)
            write_origin(slots, version, origin)
        slots.activate(version)
        slots.commit(version)
        slots.collect(0)  # the active version and the one before it stay
        drop_origins(slots)
        hand_over(state)
    return origin


def version_of(folder: Path, names: Iterable[str], beat: Beat | None = None) -> tuple[str, dict[str, FileDigest]]:
    """A name for these very files, and their digests: the same content gives the same version. Raises ModelError."""
    try:
        digests = {name: hash_file((folder / name).resolve(), beat) for name in sorted(names)}
    except OSError as error:
        raise unreadable(folder, "", error) from error
    lines = [f"{digest.sha256} {digest.length_bytes} {name}\n" for name, digest in digests.items()]
    return f"sha-{hashlib.sha256(''.join(lines).encode()).hexdigest()[:16]}", digests


def verify(state: Path, name: str, version: str, beat: Beat | None = None) -> bool:
    """Reads every byte of a version again. False: nothing to compare with is known of it.

    Raises ModelError for the first file that is not what was installed.
    """
    slots = SlotView(state, name)
    folder, origin = slots.path(version), read_origin(slots, version)
    if origin is None:
        return False
    for file, wanted in sorted(origin.files.items()):
        try:
            got = hash_file(folder / file, beat)
        except OSError as error:
            raise ModelError(folder, file, f"cannot be read: {error.strerror}; {MEND}") from error
        if got != wanted:
            raise ModelError(folder, file, f"is not what was installed: the disk may be failing; {MEND}")
    if extra := extra_files(folder, origin.files):
        raise ModelError(folder, extra[0], f"was not there when the model was installed; {MEND}")
    return True


def remove(state: Path, name: str) -> int:
    """Takes a model off the disk; the bytes that it held. Raises StoreError for one that is not there or is pinned."""
    slots, notes = Slots(state, name), read_notes(state)
    if not slots.folder.is_dir():
        raise StoreError(f"{name} is not in the store of {state}; `edged models` lists what is")
    if name in notes.pinned:
        raise StoreError(f"{name} is pinned; `edged models unpin {name}` first")
    with disk_errors():
        freed_bytes = used_bytes(slots.folder)
        slots.remove()
    if notes.of(name):
        write_notes(state, replace(notes, aliases={one: to for one, to in notes.aliases.items() if to != name}))
    return freed_bytes


def adopt_files(folder: Path, names: tuple[str, ...], aside: Path, beat: Beat | None = None) -> None:
    """Copies the named files of an offered folder into a staging folder that was emptied first. Raises StoreError."""
    with disk_errors():
        for old in aside.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        for name in names:
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, aside / name)
            if beat is not None:
                beat((aside / name).stat().st_size)
