"""Installing and removing on a disk of our own: twice changes nothing, what is the owner's stays."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from edged.errors import OwnerError
from edged.service.apply import apply, remove
from edged.service.plan import CONFIG_FILE, DROP_IN_FOLDER, plan_install
from edged.service.units import DEVICES_DROP_IN, DeviceFacts

PROGRAM = "/opt/edged/bin/edged"
GPU = (DeviceFacts("Radeon", ("/dev/dri/renderD128",), ("render",)),)


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_what_is_printed_is_what_is_written(tmp_path: Path) -> None:
    plan = plan_install(PROGRAM, GPU, packaged=False)
    apply(plan, tmp_path)
    assert _files(tmp_path) == {str(file.path.relative_to("/")) for file in plan.write}
    for file in plan.write:
        path = tmp_path / file.path.relative_to("/")
        assert path.read_text() == file.text
        assert path.stat().st_mode & 0o7777 == 0o644


def test_a_second_install_changes_nothing(tmp_path: Path) -> None:
    plan = plan_install(PROGRAM, GPU, packaged=False)
    apply(plan, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert {what for what, _ in apply(plan, tmp_path)} == {"unchanged", "kept"}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_settings_of_the_owner_are_kept(tmp_path: Path) -> None:
    config = tmp_path / CONFIG_FILE.relative_to("/")
    config.parent.mkdir(parents=True)
    config.write_text('model = "mine"\n')
    done = apply(plan_install(PROGRAM, (), packaged=False), tmp_path)
    assert ("kept", CONFIG_FILE) in done
    assert config.read_text() == 'model = "mine"\n'


def test_a_device_that_was_taken_out_loses_its_drop_in(tmp_path: Path) -> None:
    apply(plan_install(PROGRAM, GPU, packaged=False), tmp_path)
    done = apply(plan_install(PROGRAM, (), packaged=False), tmp_path)
    assert ("removed", DROP_IN_FOLDER / DEVICES_DROP_IN) in done
    assert not (tmp_path / DROP_IN_FOLDER.relative_to("/")).exists()


def test_a_socket_for_tcp_comes_and_goes_with_its_setting(tmp_path: Path) -> None:
    plan = plan_install(PROGRAM, (), packaged=True, tcp_endpoint="tcp://*:5577")
    assert [file.path.name for file in plan.write] == ["edged-tcp.socket"]
    assert "ListenStream=5577\n" in plan.write[0].text
    apply(plan, tmp_path)
    done = apply(plan_install(PROGRAM, (), packaged=True), tmp_path)
    assert [path.name for what, path in done if what == "removed"] == ["edged-tcp.socket"]


def test_beside_the_package_only_the_drop_in_is_written() -> None:
    assert [file.path for file in plan_install(PROGRAM, GPU, packaged=True).write] == [DROP_IN_FOLDER / DEVICES_DROP_IN]
    assert plan_install(PROGRAM, (), packaged=True).write == ()


def test_uninstall_leaves_models_and_settings_and_purge_leaves_nothing(tmp_path: Path) -> None:
    apply(plan_install(PROGRAM, GPU, packaged=False), tmp_path)
    model = tmp_path / "var/lib/edged/models/mine/1/model.onnx"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"weights")
    remove(tmp_path, purge=False)
    assert _files(tmp_path) == {"etc/edged/edged.toml", "var/lib/edged/models/mine/1/model.onnx"}
    remove(tmp_path, purge=True)
    assert _files(tmp_path) == set()
    assert remove(tmp_path, purge=True) == []


def test_a_drop_in_of_the_owner_survives_uninstall(tmp_path: Path) -> None:
    apply(plan_install(PROGRAM, GPU, packaged=False), tmp_path)
    own = tmp_path / (DROP_IN_FOLDER / "memory.conf").relative_to("/")
    own.write_text("[Service]\nMemoryMax=4G\n")
    remove(tmp_path, purge=False)
    assert own.exists()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("not a folder")
    with pytest.raises(OwnerError, match=r"etc/sysusers\.d/edged\.conf: cannot be written"):
        apply(plan_install(PROGRAM, (), packaged=False), tmp_path)


def test_plan_paths_are_absolute() -> None:
    for file in plan_install(PROGRAM, GPU, packaged=False).write:
        assert file.path.is_absolute()
        assert isinstance(file.path, PurePosixPath)
