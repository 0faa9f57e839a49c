"""TCP with keys: who has one is served as it says, and nobody else gets a byte. Raw pyzmq, the clients, the command."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq

from edged.client import AsyncClient, Client, DaemonNotFound, UsageError
from edged.errors import Unauthorized
from edged.serving.access import needed_right
from tests.integration.raw import ROOT, Daemon, Peer, chat

SHORT = chat("hello", max_tokens=2)


def _free_endpoint() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


class Site:
    """A daemon on TCP, and the admin who makes keys for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = _free_endpoint()
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("EDGED_", "XDG_"))
        }

    def edged(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment | {"EDGED_STATE_DIR": str(self.folder / "state"), **more}
        environment |= {
            "EDGED_CONFIG": str(self.folder / "none.toml"),
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "edged", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120)

    def key(self, name: str, *rights: str) -> Path:
        """A new client's file."""
        made = self.edged("keys", "new", name, *(word for right in rights for word in ("--right", right)))
        assert made.returncode == 0, made.stderr
        return self.folder / f"{name}.key"

    def peer(self, key: Path, **changed: bytes) -> Peer:
        """A raw pyzmq socket with that key, or parts of another."""
        read = tomllib.loads(key.read_text())
        halves = {"PUBLICKEY": read["public"], "SECRETKEY": read["secret"], "SERVERKEY": read["server"]}
        options = {f"CURVE_{name}": value.encode() for name, value in halves.items()} | changed
        return Peer(self.endpoint, **options)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("keys"))
    made.key("lab")
    made.key("desk", "infer", "admin")
    return made


@pytest.fixture(scope="module")
def open_to_tcp(site: Site) -> Iterator[Daemon]:
    with Daemon(state_dir=str(site.folder / "state"), tcp_endpoint=site.endpoint) as daemon:
        yield daemon.ready()


def test_without_keys_there_is_no_tcp(tmp_path: Path) -> None:
    for settings in ({"tcp_endpoint": _free_endpoint()}, {"endpoint": _free_endpoint()}):
        with Daemon(**settings) as daemon:
            assert daemon.process.wait(60) == 1
            assert "edged keys new" in daemon.log()
            assert "Traceback" not in daemon.log()
    with Daemon(tcp_endpoint="udp://127.0.0.1:1") as daemon:
        assert daemon.process.wait(60) == 1
        assert "tcp_endpoint: 'udp://127.0.0.1:1' is not of the form" in daemon.log()


def test_by_default_nobody_listens_on_tcp() -> None:
    with Daemon() as daemon:
        daemon.until(daemon.socket.exists, "the socket")
        listening = [line.split()[9] for line in Path(f"/proc/{daemon.pid}/net/tcp").read_text().splitlines()[1:]]
        ours = [os.readlink(link) for link in Path(f"/proc/{daemon.pid}/fd").iterdir() if link.is_symlink()]
        assert not {f"socket:[{inode}]" for inode in listening} & set(ours)


def test_a_key_gives_its_rights_and_no_more(open_to_tcp: Daemon, site: Site) -> None:
    with site.peer(site.folder / "lab.key") as lab, site.peer(site.folder / "desk.key") as desk:
        assert lab.ask("chat", **SHORT)["ev"] == "done"
        assert desk.ask("chat", **SHORT)["code"] == "unauthorized"
        hello = lab.ask("hello")
        assert all(needed_right(op) in (None, "chat") for op in hello["ops"])
        mine = lab.send("generate", id="x", stream=True, prompt="hello", max_tokens=40)
        assert desk.ask("cancel", target="x")["code"] == "not_found"
        assert lab.last(mine)["ev"] == "done"
    with Peer(open_to_tcp.endpoint) as local:
        assert local.ask("chat", **SHORT)["ev"] == "done"
    assert "key accepted key=lab" in open_to_tcp.log()


def test_no_other_key_gets_a_byte(open_to_tcp: Daemon, site: Site) -> None:
    strange_public, strange_secret = zmq.curve_keypair()
    lab = site.folder / "lab.key"
    refused: list[Peer] = [
        site.peer(lab, CURVE_PUBLICKEY=strange_public, CURVE_SECRETKEY=strange_secret),  # nobody's key
        site.peer(lab, CURVE_SERVERKEY=strange_public),  # another server's
        site.peer(lab, CURVE_SECRETKEY=strange_secret),  # a public half alone
        Peer(site.endpoint),  # no mechanism
        Peer(site.endpoint, PLAIN_USERNAME=b"lab", PLAIN_PASSWORD=b"lab"),
    ]
    for peer in refused:
        peer.send("ping")
    with site.peer(lab) as known:
        assert known.ask("ping")["ev"] == "result"
    for peer in refused:
        assert peer.quiet(0.5)
        peer.close()
    with socket.create_connection(("127.0.0.1", int(site.endpoint.rpartition(":")[2]))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\n\r\n")
        raw.settimeout(20)
        with contextlib.suppress(ConnectionResetError):
            assert b"edged" not in raw.recv(4096)
    assert "unknown key refused" in open_to_tcp.log()
    assert open_to_tcp.status()["front"]["counts"].get("error.internal", 0) == 0


async def test_the_clients_take_a_key_and_say_what_is_wrong(
    open_to_tcp: Daemon, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = site.folder / "lab.key"
    with Client(site.endpoint, key=lab) as client:
        assert client.chat("hello", max_tokens=2).text
    monkeypatch.setenv("EDGED_KEY_FILE", str(lab))
    async with AsyncClient(site.endpoint) as other:
        assert (await other.hello()).ops
    with (
        Client(site.endpoint, key=site.folder / "desk.key") as desk,
        pytest.raises(Unauthorized, match="the key 'desk'"),
    ):
        desk.chat("hello")
    with Client(open_to_tcp.endpoint) as local:  # a key does no harm where none is needed
        assert local.ping()
    unknown = tmp_path / "unknown.key"
    public, secret = (half.decode() for half in zmq.curve_keypair())
    read = tomllib.loads(lab.read_text())
    unknown.write_text(f'name = "x"\npublic = "{public}"\nsecret = "{secret}"\nserver = "{read["server"]}"\n')
    with pytest.raises(DaemonNotFound, match="does not know this key"):
        Client(site.endpoint, key=unknown)
    unknown.write_text(lab.read_text().replace(read["server"], public))
    with pytest.raises(DaemonNotFound, match="does not take this key"):
        Client(site.endpoint, key=unknown)
    with pytest.raises(DaemonNotFound, match="nobody listens there"):
        Client(_free_endpoint(), key=lab)
    monkeypatch.delenv("EDGED_KEY_FILE")
    with pytest.raises(DaemonNotFound, match="EDGED_KEY_FILE"):
        Client(site.endpoint)
    unknown.write_text("name = 1")
    for bad in (unknown, tmp_path / "nowhere.key"):
        with pytest.raises(UsageError, match="key file"):
            Client(site.endpoint, key=bad)


def test_keys_are_made_listed_and_taken_away(open_to_tcp: Daemon, site: Site) -> None:
    short = site.key("short.lived")
    assert short.stat().st_mode & 0o777 == 0o600
    for path in (site.folder / "state/keys").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    shown: dict[str, Any] = json.loads(site.edged("keys", "list", "--json").stdout)
    assert {client["name"]: client["rights"] for client in shown["clients"]} == {
        "desk": ["admin", "infer"],
        "lab": ["chat"],
        "short.lived": ["chat"],
    }
    assert tomllib.loads(short.read_text())["secret"] not in site.edged("keys", "list").stdout
    pinged = site.edged("--key", str(short), "ping", "-e", site.endpoint, "--json")
    assert pinged.returncode == 0, pinged.stderr
    with site.peer(short) as going, site.peer(site.folder / "lab.key") as staying:
        assert going.ask("chat", **SHORT)["ev"] == staying.ask("chat", **SHORT)["ev"] == "done"
        assert site.edged("keys", "revoke", "short.lived").returncode == 0
        open_to_tcp.until(
            lambda: "its key was taken away key=short.lived" in open_to_tcp.log(), "the connection to be cut"
        )
        assert staying.ask("chat", **SHORT)["ev"] == "done"
        with contextlib.suppress(zmq.Again):
            going.socket.send(msgpack.packb({"v": 1, "id": 1, "op": "ping"}), zmq.NOBLOCK)
        assert going.quiet(0.5)
    refused = site.edged("--key", str(short), "ping", "-e", site.endpoint)
    assert refused.returncode == 3
    assert "does not know this key" in refused.stderr
    for arguments, why in (
        (("revoke", "short.lived"), "no such key"),
        (("new", "lab", "--out", "other.key"), "take it away first"),
        (("new", "../up"), "a name has"),
        (("new", "x", "--public", "short"), "40 signs"),
    ):
        failed = site.edged("keys", *arguments)
        assert failed.returncode == 1
        assert why in failed.stderr


def test_a_client_may_keep_its_secret_half_to_itself(open_to_tcp: Daemon, site: Site) -> None:
    public, secret = (half.decode() for half in zmq.curve_keypair())
    assert site.edged("keys", "new", "own", "--public", public).returncode == 0
    own = site.folder / "own.key"
    with pytest.raises(UsageError, match="secret is missing"):
        Client(site.endpoint, key=own)
    own.write_text(own.read_text().replace('secret = ""', f'secret = "{secret}"'))
    with Client(site.endpoint, key=own) as client:
        assert client.ping() > 0
