"""`edged update` as typed by people and read by programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from signing import Device, Publisher
from typer.testing import CliRunner

from edged.cli.update_cmd import app
from edged.errors import ConfigError
from edged.update import wish
from edged.update.report import read_report
from edged.update.wish import Wish

Type = Callable[..., Any]


@pytest.fixture
def type_(publisher: Publisher, device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Type:
    """`type_("status", "--json")`: the output, as JSON when asked for."""
    settings = tmp_path / "update.toml"
    settings.write_text(f'source = "{publisher.folder}"\nroot_file = "{device.root_file}"\nreserve_bytes = 0\n')
    monkeypatch.setenv("EDGED_UPDATE_CONFIG", str(settings))
    monkeypatch.setenv("EDGED_STATE_DIR", str(device.state))

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, list(words))
        assert done.exit_code == code, (done.output, done.exception)
        return json.loads(done.stdout) if "--json" in words else done.output

    return run


def test_look_fetch_go_back_hold(publisher: Publisher, device: Device, models: list[Path], type_: Type) -> None:
    publisher.release(models[1], "2.0", 2)
    assert "available: nano 2.0" in type_("check")
    assert "staged: nano 2.0" in type_("apply")
    found = type_("status", "--json")
    assert (found["active"], found["staged"], found["last"]["phase"]) == ("1.0", "2.0", "staged")
    device.slots.activate("2.0", 2)
    assert type_("status", "--json")["testing"] == "2.0"
    assert type_("status", "--json")["staged"] is None
    assert "active is 1.0 instead of 2.0" in type_("rollback", "--reason", "odd")
    found = type_("status", "--json")
    assert (found["active"], found["refused"]) == ("1.0", {"2.0": "odd"})
    assert found["hold"] == "rolled back from 2.0: odd"
    assert "held: rolled back" in type_("status")
    type_("hold", "--off")
    assert "failed on this device before; odd" in type_("apply") + type_("status")
    assert "staged: nano 2.0" in type_("apply", "--again")


def test_a_failure_is_told_and_ends_with_one(publisher: Publisher, type_: Type) -> None:
    (publisher.folder / "metadata" / "timestamp.json").unlink()
    found = type_("apply", "--json", code=1)
    assert (found["outcome"], found["last"]["code"]) == ("failed", "unreachable")
    assert "(unreachable)" in type_("status")


def test_the_service_does_what_the_daemon_wished(
    publisher: Publisher, device: Device, models: list[Path], type_: Type
) -> None:
    publisher.release(models[1], "2.0", 2)
    folder = device.state / "update"
    wish.leave(folder, Wish("check", "w1"))
    assert "available" in type_("run")
    assert not wish.waits(folder)
    assert read_report(folder).asked == "w1"
    type_("run")
    assert (read_report(folder).asked, read_report(folder).phase) == ("", "staged")
    publisher.release(models[2], "3.0", 3)
    assert "looked 0.0 hours ago" in type_("run")  # the timer's next hour
    assert read_report(folder).version == "2.0"
    (folder / wish.FILE).write_text("now")
    assert wish.take(folder) == Wish()
    assert wish.take(folder) is None


def test_without_a_source_the_service_has_nothing_to_do(
    type_: Type, device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty.toml").write_text("")
    monkeypatch.setenv("EDGED_UPDATE_CONFIG", str(tmp_path / "empty.toml"))
    assert "nothing to do" in type_("run")
    wish.leave(device.state / "update", Wish("apply", "w1"))
    assert "nothing to do" in type_("run")
    told = read_report(device.state / "update")
    assert (told.phase, told.code, told.asked) == ("failed", "not_set_up", "w1")
    done = CliRunner().invoke(app, ["check"])
    assert isinstance(done.exception, ConfigError)
    (tmp_path / "empty.toml").write_text("sauce = 1\n")
    done = CliRunner().invoke(app, ["check"])
    assert "sauce" in str(done.exception)
