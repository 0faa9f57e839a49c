"""Every op by every role, over real sockets of processes that are really that user: the kernel is believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edged.protocol.messages import OPS
from edged.serving.access import Right, needed_right
from tests.integration.raw import Daemon, Peer, chat

ADA, CAMERA, OPERATOR, GUEST, CAMERAS, OPERATORS = 70_001, 70_002, 70_003, 70_004, 70_050, 70_060
TABLE = {"*": [], str(ADA): ["chat", "infer"], f"@{CAMERAS}": ["infer"], f"@{OPERATORS}": ["chat", "admin"]}
ROLES: dict[str, tuple[int, int, set[Right]]] = {
    "root": (0, 0, set(Right)),
    "ada": (ADA, ADA, {Right.CHAT, Right.INFER}),
    "camera": (CAMERA, CAMERAS, {Right.INFER}),
    "operator": (OPERATOR, OPERATORS, {Right.CHAT, Right.ADMIN}),
    "guest": (GUEST, GUEST, set()),
}
AS_USER = """
import json, os, sys, msgpack, zmq
endpoint, uid, gid, requests = json.loads(sys.argv[1])
os.setgroups([])
os.setgid(gid)
os.setuid(uid)
context = zmq.Context()
socket = context.socket(zmq.DEALER)
socket.linger = 0
socket.connect(endpoint)
answers = []
for number, request in enumerate(requests):
    socket.send(msgpack.packb({"v": 1, "id": number, **request}))
    while True:
        assert socket.poll(60_000), request
        answer = msgpack.unpackb(socket.recv())
        if answer["ev"] in ("done", "result", "error"):
            answers.append(answer)
            break
context.destroy()
print(json.dumps(answers))
"""
BODIES: dict[str, dict[str, Any]] = {
    "chat": chat("hello", max_tokens=1),
    "generate": {"prompt": "hello", "max_tokens": 1},
    "tokenize": {"text": "hello"},
}
NOT_DONE = {"no such field": 1}  # for all others: the right is looked at before the request is, and nothing is done


@pytest.fixture(scope="module")
def guarded() -> Iterator[Daemon]:
    if os.getuid() != 0:
        pytest.skip("needs root, to become other users")
    with Daemon(access=TABLE) as daemon:
        daemon.ready()
        for place in (daemon.directory, daemon.socket.parent):
            place.chmod(0o711)  # the test lets everybody reach the socket: here the table alone decides
        daemon.socket.chmod(0o666)
        yield daemon


def _ask_as(daemon: Daemon, role: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    uid, gid, _ = ROLES[role]
    given = json.dumps([daemon.endpoint, uid, gid, requests])
    asked = subprocess.run([sys.executable, "-c", AS_USER, given], capture_output=True, text=True, timeout=120)
    assert asked.returncode == 0, asked.stderr
    answers: list[dict[str, Any]] = json.loads(asked.stdout)
    return answers


@pytest.mark.parametrize("role", ROLES)
def test_every_op_by_every_role(guarded: Daemon, role: str) -> None:
    rights = ROLES[role][2]
    answers = _ask_as(guarded, role, [{"op": op, **BODIES.get(op, NOT_DONE)} for op in OPS])
    for op, answer in zip(OPS, answers, strict=True):
        needed = needed_right(op)
        refused = needed is not None and needed not in rights
        assert (answer.get("code") == "unauthorized") == refused, (op, answer)
        if refused:
            assert f"`{needed}`" in answer["message"]
        elif op in BODIES:
            assert answer["ev"] in ("done", "result"), (op, answer)
        else:
            assert answer["code"] == "invalid_request", (op, answer)
    (hello,) = _ask_as(guarded, role, [{"op": "hello"}])
    assert hello["ops"] == [op for op in OPS if needed_right(op) is None or needed_right(op) in rights]


def test_a_reload_takes_rights_away_from_clients_that_are_connected(guarded: Daemon) -> None:
    with Peer(guarded.endpoint) as root:
        assert _ask_as(guarded, "ada", [{"op": "chat", **BODIES["chat"]}])[0]["ev"] == "done"
        guarded.write_settings(access={"*": []})
        guarded.process.send_signal(1)
        guarded.until(lambda: "settings re-read changed=access" in guarded.log(), "the new table")
        assert _ask_as(guarded, "ada", [{"op": "chat", **BODIES["chat"]}])[0]["code"] == "unauthorized"
        guarded.write_settings(access={"nobody-of-that-name": ["chat"]})
        guarded.process.send_signal(1)
        guarded.until(lambda: "no such user" in guarded.log(), "the bad table to be refused")
        assert root.ask("chat", **BODIES["chat"])["ev"] == "done"


def test_another_clients_request_cannot_be_cancelled_or_seen(guarded: Daemon) -> None:
    guarded.write_settings(access=TABLE)
    guarded.process.send_signal(1)
    guarded.until(lambda: _ask_as(guarded, "ada", [{"op": "hello"}])[0]["ops"].count("chat"), "the table")
    with Peer(guarded.endpoint) as root:
        mine = root.send("generate", id="mine", stream=True, prompt="on and on", max_tokens=50)
        answers = _ask_as(guarded, "ada", [{"op": "cancel", "target": "mine"}, {"op": "ping"}])
        assert answers[0]["code"] == "not_found"
        assert root.last(mine)["ev"] == "done"
