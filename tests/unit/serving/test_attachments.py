"""Attachments and what refers to them: each one that is named was sent, each one that was sent is named."""

from __future__ import annotations

from typing import Any

import pytest
import zmq

from edged.errors import InvalidRequest
from edged.protocol.codec import pack
from edged.protocol.limits import WireLimits
from edged.protocol.messages import OPS
from edged.serving.validate import Refused, read_request
from tests.unit.protocol.test_messages import MINIMAL

pytestmark = pytest.mark.aarch64

PICTURES: list[dict[str, Any]] = [{"type": "image", "frame": 1}, {"type": "video", "frames": [0, 2, 0]}]
TENSOR = {"dtype": "float32", "shape": [1], "frame": 0}
CHAT = {"messages": [{"role": "user", "content": "first"}, {"role": "user", "content": PICTURES}]}


def _read(op: str, fields: dict[str, Any], attachments: int) -> str:
    """The op, or why the request was refused."""
    frames = [zmq.Frame(pack({"v": 1, "id": 7, "op": op, **fields})), *(zmq.Frame(b"x") for _ in range(attachments))]
    read = read_request(frames, WireLimits(max_frames=16), single_reply=False)
    if isinstance(read, Refused):
        assert isinstance(read.error, InvalidRequest)
        assert read.id == 7
        return read.error.message
    assert len(read[1]) == attachments
    return read[0].op


@pytest.mark.parametrize("op", [op for op in OPS if op not in ("chat", "infer")])
def test_an_op_without_attachments_is_sent_none(op: str) -> None:
    assert _read(op, MINIMAL[op], 0) == op
    assert _read(op, MINIMAL[op], 2) == f"attachments: {op} takes none (2 were sent)"


@pytest.mark.parametrize(
    ("op", "fields", "needs", "field"),
    [
        ("chat", MINIMAL["chat"], 0, "messages"),
        ("chat", CHAT, 3, "messages"),
        ("infer", {"image": 0}, 1, "image or inputs"),
        ("infer", {"inputs": {"x": TENSOR}}, 1, "image or inputs"),
        ("infer", {"inputs": {"x": TENSOR, "y": TENSOR}}, 1, "image or inputs"),
        ("infer", {"inputs": {"x": TENSOR, "y": TENSOR | {"frame": 1}}}, 2, "image or inputs"),
    ],
)
def test_exactly_what_is_referred_to_is_sent(op: str, fields: dict[str, Any], needs: int, field: str) -> None:
    assert _read(op, fields, needs) == op
    stray = _read(op, fields, needs + 1)
    assert stray == f"attachments: {field} does not refer to frame {needs}; send only what is used"
    if needs:
        assert f"was not sent ({needs - 1} were)" in _read(op, fields, needs - 1)


def test_a_gap_between_those_that_are_used_is_named() -> None:
    assert "does not refer to frame 0;" in _read("infer", {"image": 1}, 2)
    assert "refer to frame 0, 1, 2, 3, 4, 5, 6, 7 …;" in _read("infer", {"image": 9}, 10)
