"""Releases of models in a repository: put one in from a model folder, let more devices have it, take it out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import Signer
from tuf.api.metadata import TargetFile

from edged.fleet.repository import FleetError, Repository
from edged.store.digests import hash_file, is_file_name
from edged.store.durable import make_folder, sync_file, sync_folder, write_file
from edged.store.manifest import read_manifest
from edged.update.bundle import BUNDLE_FILE, Bundle, File, Golden, Needs, Rollout, bundle_target, target_of


def make_bundle(
    folder: Path,
    model: str,
    version: str,
    release: int,
    *,
    needs: Needs,
    golden: tuple[Golden, ...] = (),
    rollout: Rollout | None = None,
) -> Bundle:
    """Describes a model folder. Raises ModelError when it is not whole, FleetError for a name a device would refuse.

    What `needs` leaves at 0 is filled in: KV bytes per token from the graph; memory as weights and 512 tokens of KV.
    """
    manifest = read_manifest(folder)
    files: dict[str, File] = {}
    for name in manifest.files:
        if name == BUNDLE_FILE:
            continue
        if not is_file_name(name):
            raise FleetError(f"{folder / name}: devices refuse such a name; rename or remove the file")
        digest = hash_file(folder / name)
        files[name] = File(sha256=digest.sha256, length_bytes=digest.length_bytes)
    memory_bytes = needs.memory_bytes or manifest.weights_bytes + manifest.kv.bytes_for(min(512, manifest.max_tokens))
    full = needs.model_copy(update={"memory_bytes": memory_bytes, "kv_bytes_per_token": manifest.kv_bytes_per_token})
    return Bundle(
        format=1,
        model=model,
        version=version,
        release=release,
        files=files,
        needs=full,
        golden=golden,
        rollout=rollout or Rollout(),
    )


def releases(repository: Repository, model: str) -> list[int]:
    """The release counters of a model, published or drafted, ascending."""
    found = [bundle_target(path) for path in _all_targets(repository)]
    return sorted(one[1] for one in found if one is not None and one[0] == model)


def add(repository: Repository, folder: Path, bundle: Bundle, signers: Sequence[Signer]) -> None:
    """Copies the files into the repository and drafts targets with them. Raises FleetError for a counter not newer."""
    last = max(releases(repository, bundle.model), default=0)
    if bundle.release <= last:
        raise FleetError(f"{bundle.model} has release {last} already; take a higher one")
    known = _all_targets(repository)
    wanted = {bundle.target(name): (folder / name, file) for name, file in bundle.files.items()}
    for path, (_, file) in wanted.items():
        if path in known and known[path].hashes["sha256"] != file.sha256:
            raise FleetError(f"{path} is published with other content; take a new version")
    targets = {}
    for path, (source, file) in wanted.items():
        _put_file(repository, source, path, file.sha256)
        targets[path] = TargetFile(file.length_bytes, {"sha256": file.sha256}, path)
    targets |= _put_bundle(repository, bundle)
    repository.change_targets(lambda listed: listed.update(targets), signers)


def change_rollout(
    repository: Repository, model: str, release: int, rollout: Rollout, signers: Sequence[Signer]
) -> Bundle:
    """Drafts targets in which the release goes to other devices. Raises FleetError when there is none."""
    bundle = read_release(repository, model, release).model_copy(update={"rollout": rollout})
    targets = _put_bundle(repository, bundle)
    repository.change_targets(lambda listed: listed.update(targets), signers)
    return bundle


def read_release(repository: Repository, model: str, release: int) -> Bundle:
    """The bundle of a release, published or drafted. Raises FleetError when there is none."""
    path = target_of(model, release)
    target = _all_targets(repository).get(path)
    if target is None:
        raise FleetError(f"{model} has no release {release}")
    stored = repository.targets / _stored_name(path, target.hashes["sha256"])
    return Bundle.model_validate_json(stored.read_bytes())


def revoke(repository: Repository, model: str, release: int, signers: Sequence[Signer]) -> None:
    """Drafts targets without the release's files: devices that have it keep it, no other gets it.

    Its description stays, for no device, so that its counter is never given to another.
    """
    bundle = read_release(repository, model, release).model_copy(update={"rollout": Rollout(percent=0)})
    described = _put_bundle(repository, bundle)

    def drop(listed: dict[str, TargetFile]) -> None:
        listed.update(described)
        for name in bundle.files:
            listed.pop(bundle.target(name), None)

    repository.change_targets(drop, signers)


def _all_targets(repository: Repository) -> dict[str, TargetFile]:
    draft = repository.draft_of("targets")
    return draft.signed.targets if draft is not None else repository.listed


def _put_bundle(repository: Repository, bundle: Bundle) -> dict[str, TargetFile]:
    path = target_of(bundle.model, bundle.release)
    data = bundle.model_dump_json(indent=1).encode()
    target = TargetFile.from_data(path, data, ["sha256"])
    stored = repository.targets / _stored_name(path, target.hashes["sha256"])
    make_folder(stored.parent)
    write_file(stored, data)
    return {path: target}


def _put_file(repository: Repository, source: Path, path: str, sha256: str) -> None:
    """Copies a file to where devices look for it; the same bytes in the repository already are linked."""
    stored = repository.targets / _stored_name(path, sha256)
    if stored.exists():
        return
    make_folder(stored.parent)
    aside = stored.with_name(f".{stored.name}.new")
    aside.unlink(missing_ok=True)
    same = next(stored.parent.parent.glob(f"*/{sha256}.*"), None)
    if same is not None and hash_file(same).sha256 == sha256:
        os.link(same, aside)
    else:
        shutil.copyfile(source, aside)
    if hash_file(aside).sha256 != sha256:
        aside.unlink()
        raise FleetError(f"{source} changed while it was copied")
    sync_file(aside)
    aside.rename(stored)
    sync_folder(stored.parent)


def _stored_name(path: str, sha256: str) -> str:
    """Where a target lies with consistent snapshots: its digest before the last part of its path."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{sha256}.{name}" if folder else f"{sha256}.{name}"
