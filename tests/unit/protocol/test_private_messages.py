"""Messages between front and engine: every kind goes over and comes back equal."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from edged.protocol import engine as wire
from edged.protocol.engine import _KINDS, decode, encode

SAMPLES: dict[str, Any] = {
    "int": 2**40,
    "str": "text é\udcff".encode("utf-8", "replace").decode(),
    "bytes": b"\x00\xff",
    "bool": True,
    "float": 1.25,
    "float | None": 2.5,
    "int | None": 3,
    "str | None": "s",
    "dict[str, Any]": {"a": [1, {"b": b"x"}], "c": None},
    "dict[str, int]": {"n": 1},
    "dict[str, float]": {"n": 1.5},
    "list[dict[str, Any]] | None": [{"token": 1, "top": []}],
    "tuple[bytes, ...]": (b"\x00" * 100, b""),
}


@pytest.mark.parametrize("kind", _KINDS.values(), ids=_KINDS)
def test_every_kind_comes_back_equal(kind: type[Any]) -> None:
    full = kind(**{part.name: SAMPLES[str(part.type)] for part in fields(kind)})
    assert decode(encode(full)) == full
    empty = {part.name: None for part in fields(kind) if "None" in str(part.type)}
    assert decode(encode(kind(**{part.name: getattr(full, part.name) for part in fields(kind)} | empty))) is not None


def test_what_is_not_ours_raises() -> None:
    with pytest.raises(KeyError):
        decode([b"\x82\xa1t\xa5Alien\xa1f\x90"])
    with pytest.raises(TypeError):
        decode([encode(wire.Stop(1, "gone"))[0].replace(b"Stop", b"Quit")])
