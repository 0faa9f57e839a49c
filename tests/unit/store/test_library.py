"""The owner's models: imported, verified, named, pinned, removed; what is no model is refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.store.durable import StoreError
from edged.store.library import adopt_files, install, remove, verify, version_of
from edged.store.models import embedded_folder, find_model
from edged.store.notes import Notes, read_notes, with_alias, without_alias, write_notes
from edged.store.origin import Origin, read_origin
from edged.store.room import check_room, sizes
from edged.store.slot_files import used_bytes
from edged.store.slots import Slots
from edged.store.vetting import look_through

FOLDER = Origin("folder", "a stick", 1_700_000_000)


def bring(state: Path, name: str, folder: Path) -> str:
    """As `edged import` does."""
    parts = look_through(folder)
    version, _ = version_of(folder, parts.kept)
    slots = Slots(state, name)
    adopt_files(folder, parts.kept, slots.staging(version))
    install(state, name, version, FOLDER)
    return version


def test_a_folder_becomes_the_active_version_and_is_found(model: Path, tmp_path: Path) -> None:
    (model / "notes.py").write_text("print('left out')")
    (model / ".cache").mkdir()
    (model / ".cache" / "x").write_text("left out in silence")
    version = bring(tmp_path / "state", "mine", model)
    found = find_model("mine", tmp_path / "state")
    assert (found.origin, found.version) == ("store", version)
    assert look_through(model).left_out == ("notes.py",)
    assert not (found.folder / "notes.py").exists()
    assert verify(tmp_path / "state", "mine", version)
    origin = read_origin(Slots(tmp_path / "state", "mine"), version)
    assert origin is not None
    assert origin.what == "a stick"
    assert bring(tmp_path / "state", "mine", model) == version  # the same content is the same version


def test_a_plain_model_may_come_in_too(tmp_path: Path) -> None:
    digits = shutil.copytree(embedded_folder() / "digits", tmp_path / "digits")
    bring(tmp_path / "state", "mine", digits)
    assert find_model("mine", tmp_path / "state").origin == "store"
    (digits / "edged.toml").write_text("task = 5")
    with pytest.raises(ModelError, match=r"edged\.toml"):
        bring(tmp_path / "state", "mine", digits)


def test_a_changed_byte_is_found(model: Path, tmp_path: Path) -> None:
    version = bring(tmp_path, "mine", model)
    folder = Slots(tmp_path, "mine").path(version)
    data = bytearray((folder / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    os.chmod(folder / "model.onnx.data", 0o644)
    (folder / "model.onnx.data").write_bytes(data)
    with pytest.raises(ModelError, match=r"model.onnx.data: is not what was installed"):
        verify(tmp_path, "mine", version)


def test_a_new_version_leaves_the_one_before_and_no_older(model: Path, tmp_path: Path) -> None:
    versions = []
    for number in range(3):
        (model / "README.md").write_text(f"version {number}")
        versions.append(bring(tmp_path, "mine", model))
    slots = Slots(tmp_path, "mine")
    assert (slots.active, slots.previous) == (versions[2], versions[1])
    assert set(slots.versions()) == set(versions[1:])
    assert read_origin(slots, versions[0]) is None


@pytest.mark.parametrize("head", [b"\x7fELF\x02\x01", b"MZ\x90\x00", b"#!/bin/sh\n", b"version https://git-lfs"])
def test_a_program_under_a_models_name_is_refused(model: Path, tmp_path: Path, head: bytes) -> None:
    whole = (model / "model.onnx.data").read_bytes()
    (model / "model.onnx.data").write_bytes(head + whole[len(head) :])
    with pytest.raises(ModelError, match=r"model.onnx.data"):
        bring(tmp_path, "mine", model)
    assert Slots(tmp_path, "mine").active is None


def _link_out(model: Path) -> None:
    shutil.move(model / "model.onnx.data", model.parent / "elsewhere")
    (model / "model.onnx.data").symlink_to(model.parent / "elsewhere")


def _pipe(model: Path) -> None:
    os.mkfifo(model / "vocab.json")


@pytest.mark.parametrize(("spoil", "said"), [(_link_out, "link to outside"), (_pipe, "no regular file")])
def test_what_is_no_plain_file_is_refused(
    model: Path, tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(model)
    with pytest.raises(ModelError, match=said):
        bring(tmp_path, "mine", model)


def test_a_link_inside_the_folder_is_a_file(model: Path, tmp_path: Path) -> None:
    (model / "blobs").mkdir()
    shutil.move(model / "tokenizer.json", model / "blobs" / "tokenizer.json")
    (model / "tokenizer.json").symlink_to("blobs/tokenizer.json")  # as the hub's own cache lays files out
    bring(tmp_path, "mine", model)
    assert not (find_model("mine", tmp_path).folder / "tokenizer.json").is_symlink()


def test_other_names_and_pins(model: Path, tmp_path: Path) -> None:
    bring(tmp_path, "mine", model)
    write_notes(tmp_path, with_alias(Notes(pinned=frozenset({"mine"})), "best", "mine"))
    assert find_model("best", tmp_path).name == "mine"
    (model / "README.md").write_text("newer")
    with pytest.raises(StoreError, match=r"mine is pinned to"):
        bring(tmp_path, "mine", model)
    with pytest.raises(StoreError, match=r"mine is pinned"):
        remove(tmp_path, "mine")
    write_notes(tmp_path, Notes(read_notes(tmp_path).aliases))
    held = sizes(tmp_path)["mine"]
    assert remove(tmp_path, "mine") == held
    assert read_notes(tmp_path) == Notes()  # a name that leads nowhere is gone too
    assert used_bytes(tmp_path / "models") < 20_000
    with pytest.raises(StoreError, match=r"is not in the store"):
        remove(tmp_path, "mine")
    with pytest.raises(StoreError, match=r"no alias"):
        without_alias(Notes(), "best")
    with pytest.raises(StoreError, match=r"is no name"):
        with_alias(Notes(), "../x", "mine")


def test_damaged_notes_are_said(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for damage in ("", "[]", '{"aliases": 3, "pinned": []}', '{"aliases": {}}'):
        (tmp_path / "models" / "library.json").write_text(damage)
        with pytest.raises(StoreError, match=r"damaged; remove it"):
            read_notes(tmp_path)


def test_no_room_says_what_is_missing_and_what_could_go(model: Path, tmp_path: Path) -> None:
    bring(tmp_path, "mine", model)
    check_room(tmp_path, 1000, quota_bytes=0, reserve_bytes=0)
    with pytest.raises(StoreError, match=r"models may take 1.0 MB of disk .*`edged remove NAME` frees space: mine \("):
        check_room(tmp_path, 1000, quota_bytes=1_000_000, reserve_bytes=0)
    with pytest.raises(StoreError, match=r"the disk is too full: .* are needed"):
        check_room(tmp_path, 2**60, quota_bytes=0, reserve_bytes=0)
    write_notes(tmp_path, Notes(pinned=frozenset({"mine"})))
    with pytest.raises(StoreError, match=r"No model can be removed"):
        check_room(tmp_path, 2**60, quota_bytes=0, reserve_bytes=0)


def test_what_root_installs_belongs_to_the_service(model: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 12345, 12346)
    bring(state, "mine", model)
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (state / "models").rglob("*")}
    assert owners == {(12345, 12346)}
