"""A version on the disk against what was signed of it, without the network: before it is run for the first time."""

from __future__ import annotations

from edged.errors import ModelError
from edged.store.digests import FileDigest, check_files
from edged.store.slot_view import SlotView
from edged.update.bundle import BUNDLE_FILE, Bundle, read_bundle


def check_staged(slots: SlotView, version: str) -> Bundle:
    """Reads every byte of the version; returns its bundle. Raises ModelError naming the file that changed.

    The journal holds the digest of the bundle, the bundle those of all other files.
    """
    folder = slots.path(version)
    sha256 = slots.staged_digest(version)
    if not sha256:
        raise ModelError(folder, BUNDLE_FILE, "was not staged by an update; stage the version again")
    bundle = read_bundle(folder, sha256)
    length_bytes = (folder / BUNDLE_FILE).stat().st_size
    check_files(folder, {**bundle.digests(), BUNDLE_FILE: FileDigest(sha256, length_bytes)})
    return bundle


def next_staged(slots: SlotView) -> str | None:
    """The newest staged version that was neither tried nor removed since: what the daemon is to test now."""
    active, decided = slots.active, set[str]()
    floor = slots.release_of(active) if active is not None else 0
    for entry in reversed(slots.journal.read()):
        is_open = entry.version not in decided | {active, slots.previous} and entry.version in slots.versions()
        if entry.event == "staged" and is_open and entry.release > floor:
            return entry.version
        decided.update({entry.version, entry.replaced})
    return None
