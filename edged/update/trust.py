"""Which files the key holders vouch for: python-tuf walks the roles, then our own floors have the last word.

Owns `root.json` in its folder: the newest root that was verified. Nothing else is kept of the metadata; a refresh
downloads the small files anew into a scratch folder, so there is no cache whose loss would let something old in.
Specification of the roles and the order of checks: https://theupdateframework.github.io/specification/latest/
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tuf.api import exceptions
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.ngclient import Updater, UpdaterConfig

from edged.store.digests import FileDigest, is_digest
from edged.store.durable import make_folder, write_file
from edged.update.errors import DiskFailed, Expired, Unreachable, Untrusted
from edged.update.floors import Floors, FloorStore, RoleFloor
from edged.update.metadata_fetcher import MetadataFetcher
from edged.update.pace import Rates
from edged.update.transport import Transport

Role = TypeVar("Role", Root, Timestamp, Snapshot, Targets)

ROOT_FILE = "root.json"
METADATA = "metadata/"  # folder of the repository that holds the signed roles
SCRATCH = ".refresh-"
ISSUED = "x-edged-issued"  # Unix time, in the signed part of the timestamp role
MAX_ROOT_BYTES = 512_000
LIMITS = UpdaterConfig(
    max_root_rotations=64,
    root_max_length=MAX_ROOT_BYTES,
    timestamp_max_length=16_384,
    snapshot_max_length=65_536,
    targets_max_length=4_000_000,
)


@dataclass(frozen=True, slots=True)
class Vouched:
    """`targets`: path → what the file must be. `clock_behind_s`: how far the signers are ahead of this clock, or 0."""

    targets: Mapping[str, FileDigest]
    versions: Mapping[str, int]
    issued_s: int
    expires_s: int
    clock_behind_s: float


class Trust:
    """`anchor` is the root of trust as installed; `now_s` gives wall-clock seconds."""

    def __init__(
        self, folder: Path, anchor: bytes, floors: FloorStore, now_s: Callable[[], float], rates: Rates | None = None
    ) -> None:
        self._folder, self._floor_store, self._now_s = folder, floors, now_s
        self._rates = rates or Rates()
        self._anchor = anchor
        self.notes: list[str] = []

    def refresh(self, transport: Transport) -> Vouched:
        """Fetches, verifies and remembers. Raises Unreachable, Untrusted, Expired, DiskFailed."""
        try:
            make_folder(self._folder)
            floors = self._floor_store.read()
            if self._floor_store.note:
                self.notes.append(self._floor_store.note)
                floors = self._floor_store.write(floors)
            self._drop_scratch()
            scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=self._folder))
            try:
                return self._refresh(transport, floors, scratch)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            raise DiskFailed(f"the trusted metadata could not be kept: {error.strerror}") from error

    def _refresh(self, transport: Transport, floors: Floors, scratch: Path) -> Vouched:
        start, floors = self._start(floors)
        problem: Exception | None = None
        try:
            updater = Updater(
                str(scratch), METADATA, fetcher=MetadataFetcher(transport, self._rates), config=LIMITS, bootstrap=start
            )
            updater.refresh()
        except (exceptions.RepositoryError, exceptions.DownloadError) as error:
            problem = error
        root = _signed(scratch / ROOT_FILE, Root)
        if root is None:
            raise Untrusted(f"the installed root of trust cannot be read: {problem}")
        if root.version < floors.root_version:
            raise Untrusted(f"the source offers root version {root.version}, but {floors.root_version} was seen before")
        self._keep_root((scratch / ROOT_FILE).read_bytes())
        timestamp = _signed(scratch / "timestamp.json", Timestamp)
        floors = self._raise_floors(replace(floors, root_version=root.version), root, timestamp)
        if problem is not None:
            raise _told(problem) from problem
        snapshot, targets = _signed(scratch / "snapshot.json", Snapshot), _signed(scratch / "targets.json", Targets)
        assert timestamp is not None
        assert snapshot is not None
        assert targets is not None
        now_s = self._true_time(floors, root)
        for role in (root, timestamp, snapshot, targets):
            if role.is_expired(datetime.fromtimestamp(now_s, UTC)):
                raise Expired(_expiry(role, now_s, self._now_s()))
        self._raise_floors(floors, root, timestamp, snapshot, targets)
        return Vouched(
            targets=_digests(targets),
            versions={role.type: role.version for role in (root, timestamp, snapshot, targets)},
            issued_s=_issued(timestamp),
            expires_s=int(min(role.expires.timestamp() for role in (root, timestamp, snapshot, targets))),
            clock_behind_s=max(0.0, now_s - self._now_s()),
        )

    def _start(self, floors: Floors) -> tuple[bytes, Floors]:
        """The newest root there is: the installed one, or the one kept from it.

        When another root of trust was installed, and it shares no key with the one kept, the floors start anew: that
        is how an owner leaves a repository whose keys are lost.
        """
        anchor, name = _root(self._anchor), hashlib.sha256(self._anchor).hexdigest()[:32]
        if anchor is None:
            raise Untrusted("the installed root of trust is no root metadata; install it again")
        named = replace(floors, anchor=name)
        try:
            with (self._folder / ROOT_FILE).open("rb") as opened:
                kept_bytes = opened.read(MAX_ROOT_BYTES)
        except FileNotFoundError:
            return self._anchor, named
        kept = _root(kept_bytes)
        if kept is None:
            self.notes.append("the kept root was damaged: trust starts from the installed one")
            return self._anchor, named
        is_same = floors.anchor in ("", name)
        if not is_same and not set(kept.roles[Root.type].keyids) & set(anchor.roles[Root.type].keyids):
            self.notes.append("another root of trust was installed: version floors start anew")
            return self._anchor, Floors(generation=floors.generation, anchor=name)
        return (kept_bytes, named) if kept.version > anchor.version else (self._anchor, named)

    def _keep_root(self, data: bytes) -> None:
        path = self._folder / ROOT_FILE
        if not path.exists() or path.read_bytes() != data:
            write_file(path, data)

    def _raise_floors(self, floors: Floors, root: Root, *seen: Signed | None) -> Floors:
        """Floors at what was just verified. Raises Untrusted when something lies below them."""
        roles, issued_s = dict(floors.roles), floors.issued(_keys(root, "timestamp"))
        for role in seen:
            if role is None:
                continue
            keys = _keys(root, role.type)
            floor = floors.version(role.type, keys)
            if role.version < floor:
                raise Untrusted(f"the source offers {role.type} version {role.version}, but {floor} was seen before")
            roles[role.type] = RoleFloor(role.version, keys)
            if isinstance(role, Timestamp):
                issued_s = max(issued_s, _issued(role))
        new = replace(floors, roles=roles, issued_s=issued_s)
        return self._floor_store.write(new) if new != self._floor_store.read() else new

    def _true_time(self, floors: Floors, root: Root) -> float:
        return max(self._now_s(), float(floors.issued(_keys(root, "timestamp"))))

    def _drop_scratch(self) -> None:
        for old in self._folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(old, ignore_errors=True)


def _root(data: bytes) -> Root | None:
    """A root that is signed by its own keys."""
    try:
        metadata = Metadata[Root].from_bytes(data)
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except (exceptions.RepositoryError, ValueError, KeyError, AttributeError):
        return None
    return metadata.signed


def _signed(path: Path, kind: type[Role]) -> Role | None:
    """What python-tuf left there after verifying it."""
    with contextlib.suppress(FileNotFoundError, exceptions.RepositoryError):
        signed = Metadata[Role].from_bytes(path.read_bytes()).signed
        return signed if isinstance(signed, kind) else None
    return None


def _keys(root: Root, role: str) -> str:
    """A short name for the keys and the threshold that `root` sets for `role`."""
    named = root.roles[role]
    return hashlib.sha256(f"{named.threshold} {sorted(named.keyids)}".encode()).hexdigest()[:32]


def _issued(timestamp: Timestamp) -> int:
    value = timestamp.unrecognized_fields.get(ISSUED, 0)
    return value if isinstance(value, int) and 0 <= value < 2**40 else 0


def _digests(targets: Targets) -> dict[str, FileDigest]:
    found = {}
    for path, target in targets.targets.items():
        sha256 = target.hashes.get("sha256", "")
        if not is_digest(sha256):
            raise Untrusted(f"{path[:120]!r} is signed without a SHA-256")
        found[path] = FileDigest(sha256, target.length)
    return found


def _told(problem: Exception) -> Exception:
    """python-tuf's error as one of ours."""
    if isinstance(problem, exceptions.ExpiredMetadataError):
        return Expired(f"{problem}: the publisher stopped, somebody holds it back, or this box's clock is ahead")
    if isinstance(problem, exceptions.DownloadLengthMismatchError):
        return Untrusted(f"the source sends more than its metadata may hold: {problem}")
    if isinstance(problem, exceptions.DownloadError):
        cause = problem.__cause__
        return cause if isinstance(cause, Unreachable) else Unreachable(str(cause or problem))
    return Untrusted(str(problem))


def _expiry(role: Signed, now_s: float, clock_s: float) -> str:
    behind = f"; this box's clock is {(now_s - clock_s) / 86_400:.0f} days behind" if now_s > clock_s else ""
    return f"{role.type} version {role.version} expired on {role.expires:%Y-%m-%d %H:%M} UTC{behind}"
