"""Versions on disk: what is active changes in one step, and nothing half done is ever seen as a version."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.store import lock
from edged.store.digests import FileDigest, hash_file, is_file_name, is_name
from edged.store.durable import StoreError
from edged.store.journal import FILE, MAX_LINES, Journal, refused, uncommitted
from edged.store.models import find_model
from edged.store.slot_files import used_bytes
from edged.store.slots import Slots

pytestmark = pytest.mark.aarch64


@pytest.fixture
def slots(tmp_path: Path) -> Slots:
    return Slots(tmp_path, "nano", lambda: 1_700_000_000.0)


def put(slots: Slots, version: str, size: int = 100) -> dict[str, FileDigest]:
    """Stages a version of two files."""
    aside = slots.staging(version)
    (aside / "sub").mkdir()
    (aside / "model.onnx").write_bytes(version.encode() * size)
    (aside / "sub" / "vocab.json").write_bytes(b"{}")
    wanted = {name: hash_file(aside / name) for name in ("model.onnx", "sub/vocab.json")}
    slots.stage(version, wanted, release=int(version.split(".")[0]))
    return wanted


def test_a_model_is_found_in_the_folder_of_its_version(slots: Slots, tmp_path: Path) -> None:
    """An engine reads files for as long as it lives: not through a link that an update turns elsewhere."""
    assert find_model("nano", tmp_path).origin == "embedded"
    for version in ("1.0", "2.0"):
        (slots.staging(version) / "genai_config.json").write_bytes(b"{}")
        slots.stage(version, {"genai_config.json": hash_file(slots.staging(version) / "genai_config.json")})
        assert find_model("nano", tmp_path).version != version
        slots.activate(version)
        found = find_model("nano", tmp_path)
        assert (found.origin, found.version, found.folder) == ("store", version, slots.path(version))


def test_a_life_of_three_versions(slots: Slots) -> None:
    assert (slots.active, slots.previous, slots.versions()) == (None, None, ())
    for version in ("1.0", "2.0", "3.0"):
        put(slots, version)
        slots.activate(version)
    assert (slots.active, slots.previous) == ("3.0", "2.0")
    pending = uncommitted(slots.journal.read())
    assert pending is not None
    assert pending.version == "3.0"
    assert slots.roll_back("answers wrongly", release=3) == "2.0"
    assert (slots.active, slots.previous) == ("2.0", "1.0")
    assert refused(slots.journal.read())["3.0"].reason == "answers wrongly"
    assert refused(slots.journal.read())["3.0"].release == 3
    assert slots.roll_back("this one too") == "1.0"
    assert slots.previous is None
    assert slots.roll_back("and this") is None  # what shipped with the package is used
    assert slots.active is None
    slots.recover()
    assert slots.active is None
    with pytest.raises(StoreError, match="no active version"):
        slots.roll_back("nothing left")
    slots.forgive("3.0")
    assert "3.0" not in refused(slots.journal.read())


def test_content_never_changes_after_staging(slots: Slots) -> None:
    put(slots, "1.0")
    modes = {path.stat().st_mode & 0o777 for path in slots.path("1.0").rglob("*") if path.is_file()}
    assert modes == {0o444}


def test_a_file_that_is_not_what_was_signed_is_not_staged(slots: Slots) -> None:
    aside = slots.staging("1.0")
    (aside / "model.onnx").write_bytes(b"right")
    wanted = {"model.onnx": hash_file(aside / "model.onnx")}
    for bad in (b"Right", b"righ", b"right ", b""):
        (aside / "model.onnx").write_bytes(bad)
        with pytest.raises(ModelError, match="from what was signed"):
            slots.stage("1.0", wanted)
    (aside / "model.onnx").write_bytes(b"right")
    (aside / "more.py").write_bytes(b"")
    with pytest.raises(ModelError, match="not part of this version"):
        slots.stage("1.0", wanted)
    (aside / "more.py").unlink()
    (aside / "model.onnx").unlink()
    (aside / "model.onnx").symlink_to("/etc/passwd")
    with pytest.raises(ModelError, match="cannot be read"):
        slots.stage("1.0", wanted)
    assert slots.versions() == ()


def test_staging_twice_is_the_same_as_once(slots: Slots) -> None:
    wanted = put(slots, "1.0")
    slots.activate("1.0")
    slots.stage("1.0", wanted)
    with pytest.raises(StoreError, match="in use and differs"):
        put(slots, "1.0", size=7)
    assert hash_file(slots.path("1.0") / "model.onnx") == wanted["model.onnx"]


def test_previous_is_rebuilt_from_the_journal(slots: Slots) -> None:
    for version in ("1.0", "2.0", "3.0"):
        put(slots, version)
        slots.activate(version)
    link = slots.folder / "previous"
    for damage in ("3.0", "9.9", "../../../etc", "active"):
        link.unlink()
        link.symlink_to(damage)
        slots.recover()
        assert slots.previous == "2.0", damage
    link.unlink()
    slots.recover()
    assert slots.previous == "2.0"


def test_active_is_found_again_when_its_link_is_lost(slots: Slots) -> None:
    for version in ("1.0", "2.0"):
        put(slots, version)
        slots.activate(version)
    (slots.folder / "active").unlink()
    (slots.folder / "previous").unlink()
    slots.recover()
    assert (slots.active, slots.previous) == ("2.0", "1.0")


def test_links_lead_nowhere_else(slots: Slots, tmp_path: Path) -> None:
    put(slots, "1.0")
    (tmp_path / "elsewhere").mkdir()
    for target in ("../../elsewhere", str(tmp_path / "elsewhere"), ".staging", "1.0/sub", "2.0"):
        (slots.folder / "active").unlink(missing_ok=True)
        (slots.folder / "active").symlink_to(target)
        assert slots.active is None, target


def test_the_quota_takes_the_oldest_and_never_what_is_in_use(slots: Slots) -> None:
    for number, version in enumerate(("1.0", "2.0", "3.0", "4.0", "5.0")):
        put(slots, version, size=20_000)
        os.utime(slots.path(version), ns=(number, number))
    slots.activate("2.0")
    slots.activate("4.0")
    before = used_bytes(slots.folder)
    assert slots.collect(before) == ()
    assert slots.collect(before - 10_000) == ("1.0",)
    assert slots.collect(0, keep=frozenset({"3.0"})) == ("5.0",)
    assert slots.versions() == ("2.0", "3.0", "4.0")
    assert slots.collect(0) == ("3.0",)
    assert (slots.active, slots.previous) == ("4.0", "2.0")


def test_a_linked_file_counts_once(slots: Slots) -> None:
    put(slots, "1.0", size=50_000)
    before = used_bytes(slots.folder)
    aside = slots.staging("2.0")
    os.link(slots.path("1.0") / "model.onnx", aside / "model.onnx")
    assert used_bytes(slots.folder) - before < 10_000


def test_a_torn_or_damaged_journal_line_is_passed_over(slots: Slots) -> None:
    for version in ("1.0", "2.0"):
        put(slots, version)
        slots.activate(version)
    path = slots.folder / FILE
    whole = path.read_bytes()
    count = len(slots.journal.read())
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        assert len(slots.journal.read()) <= count
    path.write_bytes(whole[:-5])
    slots.journal.note("commit", "2.0")
    events = [entry.event for entry in slots.journal.read()]
    assert events == ["staged", "activate", "staged", "commit"]
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2] ^= 1
    path.write_bytes(spoiled)
    assert len(slots.journal.read()) == count - 1


def test_the_journal_is_shortened_and_keeps_every_refusal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, lambda: 0.0)
    journal.note("refuse", "bad", release=7, reason="slow")
    for _ in range(MAX_LINES + 50):
        journal.note("commit", "1.0")
    entries = journal.read()
    assert len(entries) < MAX_LINES
    assert refused(entries)["bad"].release == 7


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "active", "previous", ".hidden", "a\n", "é", "a" * 65, "a b", "\0"]
)
def test_names_that_are_refused(tmp_path: Path, slots: Slots, name: str) -> None:
    assert not is_name(name)
    with pytest.raises(StoreError):
        slots.staging(name)
    if name not in ("active", "previous"):
        with pytest.raises(StoreError):
            Slots(tmp_path, name)


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a\\b", "C:x", ".x", "a/.x", "a\n", "a/b/c/d/e", "-" * 9],
)
def test_file_names_that_are_refused(name: str) -> None:
    assert not is_file_name(name)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "sub/a_b-c+d.json", "_x"])
def test_file_names_that_are_fine(name: str) -> None:
    assert is_file_name(name)


def test_a_second_process_waits_and_then_says_so(slots: Slots) -> None:
    put(slots, "1.0")
    descriptor = os.open(slots.folder / ".lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="another process"), lock.locked(slots.folder / ".lock", wait_s=0.05):
        pass
    os.close(descriptor)
    slots.activate("1.0")
    assert slots.active == "1.0"
