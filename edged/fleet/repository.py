"""The signed roles of a repository: drafts that key holders sign one after the other, and publishing what is signed.

Owns a folder: `metadata/` and `targets/` are what devices read and any static server can serve; `pending/` holds drafts
that still lack signatures. root and targets are signed by people, k of n; snapshot and timestamp by one online key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from edged.errors import OwnerError
from edged.store.durable import write_file
from edged.update.trust import ISSUED

DAYS = {"root": 365, "targets": 90, "snapshot": 7, "timestamp": 7}
OFFLINE = ("root", "targets")
ONLINE = ("snapshot", "timestamp")


class FleetError(OwnerError):
    """The repository cannot be changed like this; the message says what is missing."""


class Repository:
    """`days`: how long each role's signature lasts; `now_s`: Unix time."""

    def __init__(
        self, folder: Path, days: dict[str, float] | None = None, now_s: Callable[[], float] = time.time
    ) -> None:
        self.folder = folder
        self.metadata, self.targets, self.pending = folder / "metadata", folder / "targets", folder / "pending"
        self._days, self._now_s = {**DAYS, **(days or {})}, now_s

    # ---- reading

    def load(self, role: str) -> Metadata[Any]:
        """The newest published metadata of a role. Raises FleetError when there is none."""
        name = f"{role}.json" if role == "timestamp" else None
        if name is not None:
            found = [self.metadata / name] if (self.metadata / name).exists() else []
        else:
            found = [path for path in self.metadata.glob(f"*.{role}.json") if path.name.split(".")[0].isdigit()]
        if not found:
            raise FleetError(f"{self.folder} has no {role}; create the repository first")
        path = found[0] if name else max(found, key=lambda path: int(path.name.split(".")[0]))
        try:
            loaded: Metadata[Any] = Metadata.from_bytes(path.read_bytes())
        except (RepositoryError, OSError) as error:
            raise FleetError(f"{path}: {error}") from error
        return loaded

    @property
    def root(self) -> Root:
        signed: Root = self.load("root").signed
        return signed

    @property
    def listed(self) -> dict[str, TargetFile]:
        """The published targets by path."""
        targets: Targets = self.load("targets").signed
        return targets.targets

    def draft_of(self, role: str) -> Metadata[Any] | None:
        path = self.pending / f"{role}.json"
        return Metadata.from_bytes(path.read_bytes()) if path.exists() else None

    def missing(self, role: str) -> int:
        """How many more signatures a draft needs; 0 when there is no draft or it has enough."""
        draft = self.draft_of(role)
        if draft is None:
            return 0
        verifiers = [draft.signed] if role == "root" else []
        if role == "root" and draft.signed.version > 1:
            verifiers.append(self.root)
        elif role == "targets":
            root_draft = self.draft_of("root")
            verifiers.append(root_draft.signed if root_draft is not None else self.root)
        short = 0
        for verifier in verifiers:
            result = verifier.get_verification_result(role, draft.signed_bytes, draft.signatures)
            short = max(short, result.threshold - len(result.signed))
        return short

    # ---- changing

    def create(self, keys: Mapping[str, Sequence[Key]], thresholds: dict[str, int], signers: Sequence[Signer]) -> None:
        """Drafts version 1 of root and an empty targets. Raises FleetError when there is a repository already."""
        if self.metadata.exists() or self.pending.exists():
            raise FleetError(f"{self.folder} holds a repository already")
        root = Root(consistent_snapshot=True)
        for role in (*OFFLINE, *ONLINE):
            for key in keys[role]:
                root.add_key(key, role)
            root.roles[role].threshold = thresholds.get(role, 1)
            if root.roles[role].threshold > len(root.roles[role].keyids):
                raise FleetError(
                    f"{role}: {root.roles[role].threshold} signatures of {len(root.roles[role].keyids)} keys"
                )
        self._draft("root", root, signers, version=1)
        self._draft("targets", Targets(), signers, version=1)

    def change_targets(self, change: Callable[[dict[str, TargetFile]], None], signers: Sequence[Signer]) -> None:
        """Drafts new targets, on top of a draft that is there."""
        draft = self.draft_of("targets")
        signed: Targets = (draft or self.load("targets")).signed
        change(signed.targets)
        self._draft("targets", signed, signers)

    def rotate(
        self, role: str, drop: Sequence[str], add: Sequence[Key], threshold: int | None, signers: Sequence[Signer]
    ) -> None:
        """Drafts a root in which `role` loses keys (by id) and gets others; old and new root keys must sign it."""
        draft = self.draft_of("root")
        root: Root = (draft or self.load("root")).signed
        for keyid in drop:
            if keyid not in root.roles[role].keyids:
                raise FleetError(f"{keyid[:12]} is no key of {role}")
            root.revoke_key(keyid, role)
        for key in add:
            root.add_key(key, role)
        root.roles[role].threshold = threshold or root.roles[role].threshold
        if root.roles[role].threshold > len(root.roles[role].keyids):
            raise FleetError(f"{role}: {root.roles[role].threshold} signatures of {len(root.roles[role].keyids)} keys")
        self._draft("root", root, signers)
        if role == "targets":
            self.change_targets(lambda _: None, signers)

    def sign(self, role: str, signers: Sequence[Signer]) -> int:
        """Adds signatures to a draft; returns how many it still lacks. Raises FleetError when there is no draft."""
        draft = self.draft_of(role)
        if draft is None:
            raise FleetError(f"there is no draft of {role} to sign")
        for signer in signers:
            draft.sign(signer, append=True)
        self._write(self.pending / f"{role}.json", draft)
        return self.missing(role)

    def publish(self, online: Sequence[Signer]) -> dict[str, int]:
        """Makes the drafts the newest metadata and signs the list anew; returns the versions. Raises FleetError.

        With nothing drafted it only renews snapshot and timestamp, which must be done before they expire.
        """
        for role in OFFLINE:
            if short := self.missing(role):
                raise FleetError(f"the draft of {role} lacks {short} signature(s); sign it first")
        self.metadata.mkdir(parents=True, exist_ok=True)
        for role in OFFLINE:
            draft = self.draft_of(role)
            if draft is not None:
                self._write(self.metadata / f"{draft.signed.version}.{role}.json", draft)
                (self.pending / f"{role}.json").unlink()
        root = self.root
        targets = self.load("targets")
        try:
            root.verify_delegate("targets", targets.signed_bytes, targets.signatures)
        except UnsignedMetadataError as error:
            raise FleetError(f"the published targets are not signed by the keys of this root: {error}") from error
        snapshot = Snapshot(self._next("snapshot"), expires=self._expiry("snapshot"))
        snapshot.meta["targets.json"] = MetaFile(targets.signed.version)
        self._put("snapshot", snapshot, online, root)
        timestamp = Timestamp(self._next("timestamp"), expires=self._expiry("timestamp"))
        timestamp.snapshot_meta = MetaFile(snapshot.version)
        timestamp.unrecognized_fields[ISSUED] = int(self._now_s())
        self._put("timestamp", timestamp, online, root)
        return {role: self.load(role).signed.version for role in (*OFFLINE, *ONLINE)}

    # ---- how

    def _draft(self, role: str, signed: Root | Targets, signers: Sequence[Signer], version: int | None = None) -> None:
        signed.version = version or self._next(role)
        signed.expires = self._expiry(role)
        draft: Metadata[Any] = Metadata(signed)
        self.pending.mkdir(parents=True, exist_ok=True)
        self._write(self.pending / f"{role}.json", draft)
        self.sign(role, [signer for signer in signers if self.may_sign(role, signer)])

    def may_sign(self, role: str, signer: Signer) -> bool:
        """Whether the key counts for the role, before or after the drafted change."""
        draft = self.draft_of("root")
        roots = [draft.signed] if draft is not None else []
        if self.metadata.exists():
            roots.append(self.root)
        return any(signer.public_key.keyid in root.roles[role].keyids for root in roots)

    def _next(self, role: str) -> int:
        try:
            version: int = self.load(role).signed.version
        except FleetError:
            return 1
        return version + 1

    def _expiry(self, role: str) -> datetime:
        now = datetime.fromtimestamp(self._now_s(), UTC).replace(microsecond=0)
        return now + timedelta(days=self._days[role])

    def _put(self, role: str, signed: Snapshot | Timestamp, signers: Sequence[Signer], root: Root) -> None:
        metadata: Metadata[Any] = Metadata(signed)
        for signer in signers:
            if signer.public_key.keyid in root.roles[role].keyids:
                metadata.sign(signer, append=True)
        try:
            root.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError as error:
            raise FleetError(f"{role} needs the online key: {error}") from error
        name = f"{role}.json" if role == "timestamp" else f"{signed.version}.{role}.json"
        self._write(self.metadata / name, metadata)

    def _write(self, path: Path, metadata: Metadata[Any]) -> None:
        write_file(path, metadata.to_bytes(JSONSerializer()))
