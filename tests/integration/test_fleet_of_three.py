"""A fleet of three daemons and its publisher, over real HTTP: the walk of docs/operations.md, first key to lost key.

What is typed at the publisher's desk is typed here too; each box does what its daemon and its updater do.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edged.client import Client
from edged.update.rollout import place
from tests.integration.asker import Asker
from tests.integration.box import PROMPTS, FleetDevice, variant
from tests.integration.raw import Daemon, until
from tests.unit.update import webserver
from tests.unit.update.desk import Desk

NAMES = ("kiosk-a", "kiosk-b", "kiosk-c")
WATCH = {"update_watch_s": 1.0, "update_watch_requests": 4}


class Fleet:
    """The desk, the web server's folder, and three boxes with a client and a customer each."""

    def __init__(self, base: Path) -> None:
        self.base, self.desk = base, Desk(base)
        self.clients: dict[str, Client] = {}
        self.customers: dict[str, Asker] = {}

    def release(self, model: Path, version: str, *more: str, keys: tuple[str, ...] = ("ada.pem", "bob.pem")) -> None:
        signed = [word for key in keys for word in ("--key", key)]
        golden = str(self.base / "golden.json")
        add = ["add", "fleet", str(model), "--model", "nano", "--version", version, "--golden", golden]
        self.desk.type(*add, *signed, *more)

    def apply(self, *names: str) -> dict[str, str]:
        """`edged update apply` on each of these boxes; how it ended."""
        return {name: self.clients[name].update("apply")["outcome"] for name in names or NAMES}

    def versions(self) -> set[str | None]:
        """What the boxes serve now."""
        return {client.models()[0].raw.get("version") for client in self.clients.values()}

    def settle(self) -> None:
        """Until no version is being watched any more."""
        for client in self.clients.values():
            until(lambda: not client.update("status").get("testing"), "the watch to end")  # noqa: B023  # used at once

    def lost(self) -> list[str]:
        """What customers lost since this was asked last."""
        found = [line for customer in self.customers.values() for line in customer.lost]
        for customer in self.customers.values():
            customer.lost.clear()
        return found


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Three boxes that serve nano as it shipped, each with a customer whose requests never end."""
    made = Fleet(tmp_path)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    with Daemon(follow_updates=False, ignore_eos=True) as reference:
        endpoint = reference.ready().endpoint
        made.desk.type("golden", "prompts.txt", "golden.json", "--max-tokens", "24", "--endpoint", endpoint)
    made.desk.type("sign", "fleet", "--key", "bob.pem")
    made.desk.publish()
    anchor = (made.desk.repo / "metadata" / "1.root.json").read_bytes()
    with webserver.serving(made.desk.repo) as web, ExitStack() as running:
        for name in NAMES:
            box = running.enter_context(FleetDevice(tmp_path / name, web.url, anchor, name))
            made.clients[name] = box.client(**WATCH)
        for name, client in made.clients.items():
            customer = Asker(client.endpoint, clients=1, tokens=24, pause_s=0.3, system="You are a kiosk.")
            made.customers[name] = running.enter_context(customer)
        yield made


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_fleet_of_three(fleet: Fleet, tmp_path: Path) -> None:
    desk = fleet.desk
    fleet.release(variant(tmp_path, "1.0"), "1.0")
    desk.publish()
    assert set(fleet.apply().values()) == {"taken"}
    assert fleet.versions() == {"1.0"}

    # a third first
    places = sorted((place(name, "nano", 2), name) for name in NAMES)
    share = (places[0][0] + places[1][0]) / 2  # 33 % of three boxes is one, when so many places are below
    fleet.release(variant(tmp_path, "2.0"), "2.0", "--percent", f"{share:.3f}")
    desk.publish()
    fleet.settle()
    outcomes = fleet.apply()
    assert outcomes == {name: "taken" if name == places[0][1] else "up_to_date" for name in NAMES}
    desk.type("rollout", "fleet", "nano", "2", "--percent", "100", "--key", "ada.pem", "--key", "bob.pem")
    desk.publish()
    assert set(fleet.apply(places[1][1], places[2][1]).values()) == {"taken"}
    assert fleet.versions() == {"2.0"}
    fleet.settle()
    assert fleet.lost() == []

    # one that answers the golden prompts otherwise: no box takes it, and none tries it twice
    wrong = json.loads((tmp_path / "golden.json").read_bytes())
    wrong[0]["answer"] = wrong[1]["answer"]
    (tmp_path / "right.json").write_bytes((tmp_path / "golden.json").read_bytes())
    (tmp_path / "golden.json").write_text(json.dumps(wrong))
    fleet.release(variant(tmp_path, "3.0"), "3.0")
    desk.publish()
    assert set(fleet.apply().values()) == {"refused"}
    assert set(fleet.apply().values()) == {"up_to_date"}
    assert fleet.versions() == {"2.0"}
    assert fleet.lost() == []

    # one that passes its test and fails its customers: it goes back by itself, and is remembered
    shutil.copy(tmp_path / "right.json", tmp_path / "golden.json")
    broken = variant(tmp_path, "4.0")
    template = broken / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{'<|system|>", "{{ no_such_function() }}{{'<|system|>"))
    fleet.release(broken, "4.0")
    desk.publish()
    fleet.apply()
    for client in fleet.clients.values():
        until(lambda: "4.0" in client.update("status")["refused"], "it to be refused")  # noqa: B023  # used at once
        assert "requests failed after the change" in client.update("status")["refused"]["4.0"]
    until(lambda: fleet.versions() == {"2.0"}, "the version before")
    assert set(fleet.apply().values()) == {"up_to_date"}
    assert {line.split(":")[0] for line in fleet.lost()} == {
        "Internal"
    }  # what the bad version did; nothing was cut off
    desk.type("revoke", "fleet", "nano", "4", "--key", "ada.pem", "--key", "bob.pem")

    # Bob lost his key; Carol signs from now on, and what Bob's key signs is worth nothing
    desk.type("key", "carol.pem")
    desk.type(
        "rotate", "fleet", "targets", "--drop", "bob.pub.json", "--new", "carol.pub.json",
        "--key", "root1.pem", "--key", "root3.pem", "--key", "ada.pem",
    )  # fmt: skip
    desk.type("sign", "fleet", "--key", "carol.pem")
    desk.publish()
    fleet.release(variant(tmp_path, "5.0"), "5.0", keys=("ada.pem", "bob.pem"))
    assert "lacks 1" in desk.type("publish", "fleet", "--online", "online.pem", ok=False)
    assert set(fleet.apply().values()) == {"up_to_date"}
    desk.type("sign", "fleet", "--key", "carol.pem")
    desk.publish()
    assert set(fleet.apply().values()) == {"taken"}
    fleet.settle()
    assert fleet.versions() == {"5.0"}
    assert fleet.lost() == []

    lines = [json.dumps(client.update("status")) for client in fleet.clients.values()]
    (tmp_path / "status.json").write_text("\n".join(lines))
    report = json.loads(desk.type("report", "status.json", "--json"))
    assert report["versions"] == {"nano 5.0": 3}
    assert sum(report["refused"].values()) == 6
    assert report["lines"] == {"devices": 3, "unreadable": 0}
