"""The work of `edged pull` once it is clear what to fetch: list, make sure of room, fetch, install."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edged.cli.meter import meter
from edged.errors import OwnerError
from edged.hardware.budget import Reserve
from edged.hardware.memory import read_memory
from edged.pull.fetch import fetch, parts_of, wanted_files
from edged.pull.hub import Hub
from edged.pull.pick import estimate
from edged.store.digests import is_name
from edged.store.disk_errors import disk_errors
from edged.store.durable import StoreError
from edged.store.library import install
from edged.store.lock import locked
from edged.store.models import embedded_folder
from edged.store.notes import read_notes
from edged.store.origin import Origin
from edged.store.room import check_room, size
from edged.store.slot_files import used_bytes
from edged.store.slots import Slots
from edged.update.pace import Rates

if TYPE_CHECKING:
    from edged.config import Settings
    from edged.pull.pick import Pick
    from edged.store.catalog import CatalogModel

BUSY_FILE = ".pull.lock"


def bring(
    settings: Settings,
    model: CatalogModel,
    picked: Pick,
    target: str,
    *,
    revision: str,
    rate: int,
    anyway: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Fetches and installs what was picked under the name `target`. Facts for the owner, `already` when it was there.

    Raises OwnerError and its kinds; what came before an error is kept for the next run.
    """
    state, variant = settings.state_path, picked.variant
    check_target(settings, target)
    hub = Hub()
    listing = hub.listing(variant.repo, revision or variant.revision, variant.folder)
    parts, files = parts_of(listing), wanted_files(listing)
    all_bytes = sum(file.size_bytes for file in files)
    reserve = Reserve(settings.memory_reserve_bytes, settings.memory_reserve_fraction)
    fit = estimate(model, variant, picked.provider, all_bytes, read_memory(), reserve)
    if not fit.fits and not anyway:
        raise OwnerError(
            f"{target} is {size(all_bytes)} and needs about {size(fit.need_bytes)} of memory; this box has "
            f"{size(fit.usable_bytes)}. --anyway fetches it all the same"
        )
    slots, version = Slots(state, target), f"{listing.commit[:12]}-{variant.name}"[:64]
    facts = {
        "name": target,
        "version": version,
        "commit": listing.commit,
        "endpoint": hub.endpoint,
        "folder": str(slots.path(version)),
        "files_bytes": all_bytes,
        "left_out": list(parts.left_out),
    }
    if slots.active == version:
        return facts | {"already": True}
    with disk_errors():
        aside = slots.staging(version)
        slots.drop_staging(keep=version)
    with disk_errors(), locked(slots.folder / BUSY_FILE, wait_s=0.1):
        check_room(
            state,
            max(0, all_bytes - used_bytes(aside)),
            quota_bytes=settings.models_disk_bytes,
            reserve_bytes=settings.disk_reserve_bytes,
        )
        active = slots.active
        with meter(f"fetching {target}", all_bytes, quiet=quiet) as shown:
            digests = fetch(
                hub,
                listing,
                aside,
                rates=Rates(most=rate),
                progress=shown.at,
                have=[slots.path(active)] if active else [],
            )
        what = f"{variant.repo} {variant.folder} at {listing.commit}".replace("  ", " ")
        origin = Origin("hub", what, int(time.time()), variant.name, digests)
        install(state, target, version, origin)
    return facts | {"already": False}


def check_target(settings: Settings, target: str) -> None:
    """Raises StoreError for a name that a model of the owner's may not have."""
    if not is_name(target):
        raise StoreError(f"{target[:80]!r} is no name of a model: letters, digits, '.', '_', '-', at most 64")
    if (embedded_folder() / target).is_dir():
        raise StoreError(f"{target} ships with edged; give this one another --name")
    notes = read_notes(settings.state_path)
    if target in notes.aliases:
        raise StoreError(f"{target} is another name of {notes.aliases[target]}; `edged models unalias {target}` first")
    if target in notes.pinned and Slots(settings.state_path, target).active:
        raise StoreError(f"{target} is pinned: `edged models unpin {target}` first, or give this one another --name")
