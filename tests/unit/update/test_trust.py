"""Attack stories: whatever a thief, a replayer or a broken server offers, the device keeps what it has and says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from signing import DAY_S, Device, Publisher
from tuf.api.metadata import Metadata, Timestamp

from edged.update.report import read_report
from edged.update.trust import ISSUED


def refused(device: Device, code: str, *words: str, **changes: object) -> str:
    """One update that must fail; the old version stays active, and the status tells."""
    before = device.slots.active
    report = device.update(**changes)
    assert (report.phase, report.code) == ("failed", code), report
    assert device.slots.active == before
    assert read_report(device.state / "update").message == report.message
    for word in words:
        assert word in report.message
    return report.message


def works_again(device: Device) -> None:
    assert device.update().phase in ("staged", "up_to_date")


def test_an_honest_release_is_staged_whole(publisher: Publisher, device: Device, models: list[Path]) -> None:
    publisher.release(models[1], "2.0", 2)
    assert device.take() == "2.0"
    assert (device.slots.active, device.slots.previous) == ("2.0", "1.0")
    assert device.update().phase == "up_to_date"


def test_rollback_to_older_signed_metadata(publisher: Publisher, device: Device, models: list[Path]) -> None:
    old = publisher.backup()
    publisher.release(models[1], "2.0", 2)
    device.take()
    new = publisher.backup()
    publisher.replay(old)
    refused(device, "untrusted", "seen before")
    publisher.replay(new)
    works_again(device)


def test_rollback_survives_a_lost_cache_and_one_lost_floor(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    old = publisher.backup()
    publisher.release(models[1], "2.0", 2)
    device.take()
    publisher.replay(old)
    shutil.rmtree(device.state / "update" / "trust")
    refused(device, "untrusted", "seen before")
    (device.state / "update" / "floors.json").write_bytes(b"")
    refused(device, "untrusted", "seen before")
    (device.state / "models" / ".floors" / "floors.json").write_bytes(bytes(300))
    refused(device, "untrusted", "seen before")  # the first copy was written again in between


def test_with_every_memory_lost_nothing_older_than_the_active_release_is_taken(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    old = publisher.backup()
    publisher.release(models[2], "3.0", 3)
    device.take()
    publisher.replay(old)
    shutil.rmtree(device.state / "update")
    for path in (device.state / "models").glob(".floors/*"):
        path.write_bytes(bytes(path.stat().st_size))
    report = device.update()
    assert report.phase == "up_to_date"
    assert any("damaged" in note for note in report.notes)
    assert device.slots.active == "3.0"


def test_freeze_is_noticed_when_the_metadata_expires(publisher: Publisher, device: Device) -> None:
    publisher.shift_s = -8 * DAY_S
    fresh = publisher.backup()
    publisher.publish()  # signed eight days ago, for seven days
    refused(device, "expired", "expired")
    publisher.shift_s = 0
    publisher.replay(fresh, *fresh)
    publisher.publish()
    works_again(device)


@pytest.mark.parametrize("part", ["snapshot", "targets"])
def test_mix_and_match(publisher: Publisher, device: Device, models: list[Path], part: str) -> None:
    publisher.release(models[1], "2.0", 2)
    kept = publisher.backup()
    versions = sorted(name for name in kept if name.endswith(f".{part}.json"))
    publisher.replay({versions[-1]: kept[versions[0]]}, versions[-1])
    refused(device, "untrusted")
    publisher.replay(kept)
    works_again(device)


def test_a_file_of_another_version_in_place_of_the_signed_one(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    bundle = publisher.release(models[1], "2.0", 2)
    stored = publisher.folder / "targets" / "nano" / "2.0" / f"{bundle.files['model.onnx.data'].sha256}.model.onnx.data"
    right = stored.read_bytes()
    stored.write_bytes((models[0] / "model.onnx.data").read_bytes())
    refused(device, "untrusted", "not the bytes that were signed")
    stored.write_bytes(right)
    works_again(device)


def test_fast_forward_with_a_stolen_online_key_is_healed_by_new_keys(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    honest = publisher.backup()
    timestamp: Metadata[Timestamp] = Metadata.from_bytes(honest["timestamp.json"])
    timestamp.signed.version = 2**40
    timestamp.signed.unrecognized_fields[ISSUED] += 5 * 365 * int(DAY_S)
    timestamp.sign(publisher.online)
    publisher.replay({"timestamp.json": timestamp.to_bytes()}, "timestamp.json")
    refused(device, "expired", "behind")  # all is expired five years from now
    publisher.replay(honest)
    publisher.release(models[1], "2.0", 2)
    refused(device, "untrusted", "seen before")
    rotate_online(publisher)
    publisher.publish()
    assert device.take() == "2.0"


def rotate_online(publisher: Publisher) -> None:
    old, publisher.online = publisher.online, CryptoSigner.generate_ed25519()
    for role in ("snapshot", "timestamp"):
        publisher.repository.rotate(
            role, [old.public_key.keyid], [publisher.online.public_key], None, publisher.roots[:2]
        )


def test_one_of_two_signatures_is_not_enough(publisher: Publisher, device: Device, models: list[Path]) -> None:
    publisher.release(models[1], "2.0", 2)
    newest = max((publisher.folder / "metadata").glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0]))
    whole = newest.read_bytes()
    text = json.loads(whole)
    text["signatures"] = text["signatures"][:1]
    newest.write_text(json.dumps(text))
    refused(device, "untrusted", "1/2")
    text["signatures"] *= 2
    newest.write_text(json.dumps(text))
    refused(device, "untrusted")
    newest.write_bytes(whole)
    works_again(device)


def test_ten_root_rotations_are_walked_and_an_old_key_is_worth_nothing(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    stolen = list(publisher.roots)
    for number in range(10):
        new = CryptoSigner.generate_ed25519()
        old = publisher.roots.pop(0)
        publisher.roots.append(new)
        signers = [old, *publisher.roots]
        publisher.repository.rotate("root", [old.public_key.keyid], [new.public_key], None, signers)
        publisher.publish()
        if number == 4:
            works_again(device)
    publisher.release(models[1], "2.0", 2)
    assert device.take() == "2.0"
    assert json.loads((device.state / "update" / "trust" / "root.json").read_bytes())["signed"]["version"] == 11
    publisher.repository.rotate("root", [], [CryptoSigner.generate_ed25519().public_key], None, publisher.roots)
    forged = publisher.repository.draft_of("root")
    assert forged is not None
    forged.signatures.clear()
    for key in stolen:
        forged.sign(key, append=True)
    (publisher.folder / "metadata" / "12.root.json").write_bytes(forged.to_bytes())
    refused(device, "untrusted")
    (publisher.folder / "metadata" / "12.root.json").unlink()
    works_again(device)


def test_a_fresh_device_walks_ten_rotations_from_the_installed_root(
    publisher: Publisher, models: list[Path], tmp_path: Path
) -> None:
    for _ in range(10):
        rotate_online(publisher)
        publisher.publish()
    device = Device(tmp_path / "fresh", publisher)
    assert device.take() == "1.0"


def test_a_revoked_key_signs_no_more(publisher: Publisher, device: Device, models: list[Path]) -> None:
    stolen = publisher.signers[0]
    fresh = CryptoSigner.generate_ed25519()
    publisher.signers[0] = fresh
    publisher.repository.rotate(
        "targets", [stolen.public_key.keyid], [fresh.public_key], None, [*publisher.roots[:2], *publisher.signers]
    )
    publisher.publish()
    works_again(device)
    publisher.release(models[1], "2.0", 2)
    newest = max((publisher.folder / "metadata").glob("*.targets.json"), key=lambda path: int(path.name.split(".")[0]))
    metadata = Metadata.from_bytes(newest.read_bytes())
    metadata.signatures.pop(fresh.public_key.keyid)
    metadata.sign(stolen, append=True)
    newest.write_bytes(metadata.to_bytes())
    refused(device, "untrusted", "1/2")


def test_a_root_that_is_held_back_is_noticed_by_its_floor(publisher: Publisher, device: Device) -> None:
    before = publisher.backup()
    rotate_online(publisher)
    publisher.publish()
    works_again(device)
    (device.state / "update" / "trust" / "root.json").unlink()
    publisher.replay(before)
    refused(device, "untrusted", "root version 1")


def test_a_damaged_kept_root_costs_nothing_but_a_walk(publisher: Publisher, device: Device, models: list[Path]) -> None:
    rotate_online(publisher)
    publisher.publish()
    works_again(device)
    (device.state / "update" / "trust" / "root.json").write_bytes(bytes(4096))
    publisher.release(models[1], "2.0", 2)
    report = device.update()
    assert report.phase == "staged"
    assert any("damaged" in note for note in report.notes)


@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json"])
def test_endless_metadata_is_cut_off(publisher: Publisher, device: Device, name: str) -> None:
    path = publisher.folder / "metadata" / name
    right = path.read_bytes() if path.exists() else None
    with path.open("wb") as opened:
        opened.truncate(1 << 40)
    refused(device, "untrusted", "more than")
    path.unlink() if right is None else path.write_bytes(right)
    works_again(device)


def test_a_clock_25_years_behind_lets_nothing_expired_in(
    publisher: Publisher, models: list[Path], tmp_path: Path
) -> None:
    """The publisher lives 25 years ahead of this machine's clock: the same thing, seen from the other side."""
    publisher = Publisher(tmp_path / "ahead", shift_s=25 * 365 * DAY_S)
    publisher.release(models[0], "1.0", 1)
    device = Device(tmp_path / "behind", publisher)
    device.take()
    frozen = publisher.backup()
    publisher.shift_s += 8 * DAY_S
    publisher.publish()
    report = device.update()
    assert report.phase == "up_to_date"
    assert report.clock_behind_s > 24 * 365 * DAY_S
    publisher.shift_s += 2 * DAY_S
    publisher.release(models[1], "2.0", 2, publish=False)
    publisher.shift_s -= 18 * DAY_S
    publisher.publish()  # newer by version, but expired long ago by the time that was seen
    refused(device, "expired", "behind")
    publisher.replay(frozen)
    refused(device, "untrusted", "seen before")
    assert device.slots.active == "1.0"


def test_a_clock_30_days_ahead_stops_updates_and_its_mending_lets_them_go_on(
    publisher: Publisher, device: Device, models: list[Path]
) -> None:
    publisher.release(models[1], "2.0", 2)
    refused(device, "expired", shift_s=30 * DAY_S)
    assert device.take() == "2.0"


def test_another_installed_root_begins_anew(
    publisher: Publisher, device: Device, models: list[Path], tmp_path: Path
) -> None:
    """All root keys are lost: the owner brings a new root of trust to the box."""
    for _ in range(3):
        publisher.publish()
    works_again(device)
    other = Publisher(tmp_path / "other")
    other.release(models[1], "2.0", 2)
    refused(device, "untrusted", source=str(other.folder))
    device.root_file.write_bytes(other.anchor)
    report = device.update(source=str(other.folder))
    assert report.phase == "staged"
    assert any("another root of trust" in note for note in report.notes)


def test_no_root_of_trust_no_update(device: Device) -> None:
    device.root_file.write_bytes(b"{}")
    refused(device, "untrusted", "root of trust")
    device.root_file.unlink()
    refused(device, "untrusted", "root of trust")
