"""A fleet of three devices and its publisher, from the first key to a lost one, by the commands and over real HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import webserver
from desk import Desk
from signing import Device
from typer.testing import CliRunner

from edged.fleet.commands import app
from edged.update.rollout import place


def test_a_fleet_from_the_first_key_to_a_lost_one(models: list[Path], tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert "lacks 1" in desk.type("publish", "fleet", "--online", "online.pem", ok=False)
    desk.type("sign", "fleet", "--key", "bob.pem")
    desk.publish()
    add = ("add", "fleet", str(models[0]), "--model", "nano", "--key", "ada.pem", "--key", "bob.pem")
    desk.type(*add, "--version", "1.0")
    desk.publish()
    anchor = SimpleNamespace(anchor=(desk.repo / "metadata" / "1.root.json").read_bytes(), folder=desk.repo)
    names = ["device-a", "device-b", "device-c"]
    with webserver.serving(desk.repo) as web:
        fleet = {
            name: Device(tmp_path / name, anchor, device_id=name, source=web.url)  # type: ignore[arg-type]
            for name in names
        }
        assert [device.take() for device in fleet.values()] == ["1.0"] * 3

        first = min(names, key=lambda name: place(name, "nano", 2))
        least = place(first, "nano", 2)
        others = sorted(place(name, "nano", 2) for name in names)[1]
        add = (*add[:2], str(models[1]), *add[3:])
        desk.type(*add, "--version", "2.0", "--percent", f"{(least + others) / 2:.3f}")
        desk.publish()
        phases = {name: device.update().phase for name, device in fleet.items()}
        assert phases == {name: "staged" if name == first else "up_to_date" for name in names}
        fleet[first].slots.activate("2.0", 2)

        desk.type("rollout", "fleet", "nano", "2", "--percent", "100", "--key", "ada.pem", "--key", "bob.pem")
        desk.publish()
        for name in names:
            if name != first:
                assert fleet[name].take() == "2.0"
        assert {device.update().phase for device in fleet.values()} == {"up_to_date"}

        add = (*add[:2], str(models[2]), *add[3:])
        desk.type(*add, "--version", "3.0")
        desk.publish()
        for device in fleet.values():
            device.take()
            device.slots.roll_back("answers wrongly", 3)
            assert device.update().passed[0]["detail"] == "answers wrongly"
        desk.type("revoke", "fleet", "nano", "3", "--key", "ada.pem", "--key", "bob.pem")
        desk.publish()
        assert {device.slots.active for device in fleet.values()} == {"2.0"}

        desk.type("key", "carol.pem")
        desk.type(
            "rotate", "fleet", "targets", "--drop", "bob.pub.json", "--new", "carol.pub.json",
            "--key", "root1.pem", "--key", "root3.pem", "--key", "ada.pem",
        )  # fmt: skip
        assert "lacks 1" in desk.type("show", "fleet")
        desk.type("sign", "fleet", "--key", "carol.pem")
        desk.publish()
        desk.type(*add[:5], "--version", "4.0", "--key", "ada.pem", "--key", "bob.pem")
        assert "lacks 1" in desk.type("publish", "fleet", "--online", "online.pem", ok=False)
        desk.type("sign", "fleet", "--key", "carol.pem")
        desk.publish()
        assert {device.take() for device in fleet.values()} == {"4.0"}
        shown = json.loads(desk.type("show", "fleet", "--json"))
        assert [(one["release"], one["percent"]) for one in shown["releases"]] == [(1, 100), (2, 100), (3, 0), (4, 100)]


def test_keys_are_never_written_over_and_may_be_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_KEY_PASSPHRASE", "a long one")
    assert CliRunner().invoke(app, ["key", str(tmp_path / "k.pem")]).exit_code == 0
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()
    again = CliRunner().invoke(app, ["key", str(tmp_path / "k.pem")])
    assert "never written over" in str(again.exception)
    monkeypatch.setenv("EDGED_KEY_PASSPHRASE", "another")
    (tmp_path / "r").mkdir()
    wrong = CliRunner().invoke(app, ["sign", str(tmp_path / "r"), "--key", str(tmp_path / "k.pem")])
    assert wrong.exit_code == 1


def test_the_roll_call(tmp_path: Path) -> None:
    lines = [
        {
            "device": "a",
            "model": "nano",
            "active": "1.0",
            "last": {"phase": "failed", "code": "expired"},
            "refused": {},
        },
        {"device": "a", "model": "nano", "active": "2.0", "last": {"phase": "staged"}, "refused": {"3.0": "slow"}},
        {"device": "b", "model": "nano", "active": None, "last": {"phase": "up_to_date"}, "refused": {}},
    ]
    path = tmp_path / "status.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\nnot json\n[]\n")
    done = CliRunner().invoke(app, ["report", str(path), "--json"])
    found = json.loads(done.output)
    assert found["versions"] == {"nano 2.0": 1, "nano as shipped": 1}
    assert found["refused"] == {"3.0: slow": 1}
    assert found["lines"] == {"devices": 2, "unreadable": 2}
