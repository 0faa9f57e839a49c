"""A publisher with keys in memory and a repository on disk, and a device that updates from it."""

from __future__ import annotations

import copy
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner

from edged.fleet import releases
from edged.fleet.repository import Repository
from edged.store.slots import Slots
from edged.update.bundle import Bundle, Golden, Needs, Rollout
from edged.update.report import Report
from edged.update.settings import UpdateSettings
from edged.update.transport import Transport
from edged.update.updater import run

DAY_S = 86_400.0


class Publisher:
    """Root 2 of 3, targets 2 of 2, one online key. `shift_s` moves its clock."""

    def __init__(self, folder: Path, shift_s: float = 0.0) -> None:
        self.shift_s = shift_s
        self.roots = [CryptoSigner.generate_ed25519() for _ in range(3)]
        self.signers = [CryptoSigner.generate_ed25519() for _ in range(2)]
        self.online = CryptoSigner.generate_ed25519()
        self.repository = Repository(folder, now_s=lambda: time.time() + self.shift_s)
        keys = {
            "root": [key.public_key for key in self.roots],
            "targets": [key.public_key for key in self.signers],
            "snapshot": [self.online.public_key],
            "timestamp": [self.online.public_key],
        }
        self.repository.create(keys, {"root": 2, "targets": 2}, self.offline)
        self.publish()
        self.anchor = (folder / "metadata" / "1.root.json").read_bytes()

    def copied(self, folder: Path) -> Publisher:
        """The same keys, a repository of its own."""
        made = copy.copy(self)
        made.roots, made.signers = list(self.roots), list(self.signers)
        shutil.copytree(self.folder, folder)
        made.repository = Repository(folder, now_s=lambda: time.time() + made.shift_s)
        return made

    @property
    def folder(self) -> Path:
        return self.repository.folder

    @property
    def offline(self) -> Sequence[CryptoSigner]:
        return [*self.roots[:2], *self.signers]

    def publish(self) -> None:
        self.repository.publish([self.online])

    def release(
        self,
        model: Path,
        version: str,
        number: int,
        *,
        needs: Needs | None = None,
        golden: tuple[Golden, ...] = (),
        rollout: Rollout | None = None,
        publish: bool = True,
    ) -> Bundle:
        bundle = releases.make_bundle(
            model, "nano", version, number, needs=needs or Needs(), golden=golden, rollout=rollout
        )
        releases.add(self.repository, model, bundle, self.offline)
        if publish:
            self.publish()
        return bundle

    def backup(self) -> dict[str, bytes]:
        """The metadata as an eavesdropper keeps it."""
        return {path.name: path.read_bytes() for path in (self.folder / "metadata").iterdir()}

    def replay(self, kept: dict[str, bytes], *names: str) -> None:
        """Puts old metadata back: all of it, or the named files."""
        folder = self.folder / "metadata"
        if not names:
            shutil.rmtree(folder)
            folder.mkdir()
        for name in names or kept:
            (folder / name).write_bytes(kept[name])


class Device:
    """A state directory, and how it is told to update."""

    def __init__(self, base: Path, publisher: Publisher, **settings: Any) -> None:
        base.mkdir(exist_ok=True)
        self.state = base / "state"
        self.root_file = base / "root.json"
        self.root_file.write_bytes(publisher.anchor)
        self.settings = UpdateSettings(
            **{
                "action": "apply",
                "state_dir": self.state,
                "source": str(publisher.folder),
                "root_file": self.root_file,
                "model": "nano",
                "device_id": "device-1",
                "edged": "1.0",
                "architecture": "x86_64",
                "memory_bytes": 8 * 2**30,
                "attempts": 1,
                "reserve_bytes": 0,
                **settings,
            }
        )
        self.slots = Slots(self.state, "nano")

    def update(self, transport: Transport | None = None, shift_s: float = 0.0, **changes: Any) -> Report:
        settings = self.settings.model_copy(update=changes)
        return run(settings, transport, now_s=lambda: time.time() + shift_s)

    def take(self, **changes: Any) -> str:
        """Updates and activates what was staged, without a test of it."""
        report = self.update(**changes)
        assert report.phase == "staged", report
        self.slots.activate(report.version, report.release)
        self.slots.commit(report.version)
        return report.version

    def command(self) -> tuple[list[str], bytes]:
        """The updater as a process, and what it is told."""
        return [sys.executable, "-m", "edged.update"], json.dumps(self.settings.model_dump(mode="json")).encode()
