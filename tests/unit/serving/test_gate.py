"""Who a client is taken for, and what is written down of what admins do."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import Unauthorized
from edged.protocol.messages import OPS
from edged.serving import audit
from edged.serving.access import OPEN_OPS, Right, make_access
from edged.serving.audit import Audit
from edged.serving.door import Client
from edged.serving.gate import Gate
from edged.serving.outbox import Outbox
from edged.serving.peer import Peer, key_uid


def _client(peer: Peer) -> Client:
    return Client(b"x", 7, peer, False, Outbox(1000))


def _gate(tmp_path: Path, **keys: frozenset[Right]) -> Gate:
    return Gate(make_access({"1000": ["chat"]}, own_uid=900), Audit(tmp_path / "audit.log"), keys.get)


def test_a_key_has_its_own_rights_and_a_revoked_one_none(tmp_path: Path) -> None:
    gate = _gate(tmp_path, lab=frozenset({Right.CHAT}))
    lab, gone = _client(Peer(key_uid("lab"), key="lab")), _client(Peer(key_uid("gone"), key="gone"))
    gate.check(lab, "chat")
    for client, op in ((lab, "infer"), (gone, "chat"), (gone, "tokenize")):
        if op in OPS:
            with pytest.raises(Unauthorized, match="the key"):
                gate.check(client, op)
    assert set(gate.ops(gone)) == OPEN_OPS & set(OPS)
    gate.check(lab, "no such op")  # the parser says which there are


@given(st.text(min_size=1, max_size=64), st.text(min_size=1, max_size=64))
def test_a_key_is_nobody_elses_user(one: str, other: str) -> None:
    assert key_uid(one) < -1
    assert (key_uid(one) == key_uid(other)) == (one == other)


class Load(SimpleNamespace):
    def model_dump(self, **_: Any) -> dict[str, Any]:
        return {"model": self.model}


def test_what_admins_do_is_written_down_and_the_file_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, path = _gate(tmp_path), tmp_path / "audit.log"
    gate.note(_client(Peer(0, 0, 5)), Load(op="chat", model="phi"))  # type: ignore[arg-type]
    assert not path.exists()
    gate.note(_client(Peer(0, 0, 5)), Load(op="load", model="phi"))  # type: ignore[arg-type]
    line = json.loads(path.read_text())
    assert (line["op"], line["uid"], line["pid"]) == ("load", 0, 5)
    assert "phi" in line["details"]
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(audit, "MAX_FILE_BYTES", 300)
    for _ in range(50):
        gate.note(_client(Peer(key_uid("lab"), key="lab")), Load(op="unload", model="x" * 50))  # type: ignore[arg-type]
    assert {file.name for file in tmp_path.iterdir()} == {"audit.log", "audit.log.1"}
    assert all(file.stat().st_size < 600 for file in tmp_path.iterdir())
    assert json.loads(path.read_text().splitlines()[-1])["key"] == "lab"


def test_a_disk_that_takes_nothing_is_told_to_the_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "audit.log").mkdir()
    Audit(tmp_path / "audit.log").write("load", Peer(0, 0, 5), {"model": "phi"})
    assert "audit op=load uid=0" in caplog.text
    assert "audit log not written" in caplog.text
