"""The codec: what an untrusted peer may send, and how it is told what it may not."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import InvalidRequest
from edged.protocol.codec import MAX_DEPTH, pack, unpack

pytestmark = pytest.mark.aarch64

LIMIT = 256 * 1024

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), plain, max_size=5))
def test_every_plain_map_comes_back_as_it_was(message: dict[str, Any]) -> None:
    assert unpack(pack(message), max_bytes=2**20) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_a_map_or_refused(data: bytes) -> None:
    try:
        message = unpack(data, max_bytes=LIMIT)
    except InvalidRequest as refused:
        message = {"told": refused.message}
        assert len(refused.message) < 300  # noqa: PT017  both ends are right, and either may come
    assert unpack(pack(message), max_bytes=2**20) == message


@given(st.dictionaries(st.text(max_size=3), plain, min_size=1, max_size=3), st.data())
def test_a_cut_map_is_refused(message: dict[str, Any], data: st.DataObject) -> None:
    packed = pack(message)
    cut = data.draw(st.integers(0, len(packed) - 1))
    with pytest.raises(InvalidRequest):
        unpack(packed[:cut], max_bytes=LIMIT)
    with pytest.raises(InvalidRequest):
        unpack(packed + b"\xc0", max_bytes=LIMIT)


def _nested(levels: int, kind: str) -> bytes:
    opening = b"\x91" if kind == "list" else b"\x81\xa1k"
    return b"\x81\xa1x" + opening * (levels - 1) + b"\xc0"


@pytest.mark.parametrize("kind", ["list", "map"])
def test_nesting_has_its_ceiling(kind: str) -> None:
    assert unpack(_nested(MAX_DEPTH, kind), max_bytes=LIMIT)
    with pytest.raises(InvalidRequest, match=r"^x.*nested deeper than 16"):
        unpack(_nested(MAX_DEPTH + 1, kind), max_bytes=LIMIT)
    for levels in (1000, 1025, 100_000):
        with pytest.raises(InvalidRequest):
            unpack(_nested(levels, kind), max_bytes=LIMIT)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"\x82\xa1a\x01\xa1a\x02", "a: this key comes twice"),
        (b"\x81\xa1o\x82\xa1b\x01\xa1b\x01", "b: this key comes twice"),
        (b"\x81\xa4text\xa2\xff\xfe", "text: text must be UTF-8"),
        (b"\x81\xa1m\x91\x81\xa1c\xa1\x80", r"m\[0\].c: text must be UTF-8"),
        (b"\x81\xa1\xff\x01", "a key is not UTF-8"),
        (b"\x81\x01\x01", "msgpack map"),
        (b"\x81\xc4\x01a\x01", "keys must be text"),
        (b"\x81\xa1a\xd4\x07x", "ext types"),
        (b"\x81\xa1a\xd6\xff\x00\x00\x00\x01", "a: this msgpack type"),
        (b"\x91\x01", "must be a msgpack map"),
        (b"\xc0", "must be a msgpack map"),
        (b"", "msgpack map"),
    ],
)
def test_what_is_refused_is_named(data: bytes, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        unpack(data, max_bytes=LIMIT)


def test_the_size_ceiling_is_exact() -> None:
    data = msgpack.packb({"k": "x" * 1000})
    assert unpack(data, max_bytes=len(data))
    with pytest.raises(InvalidRequest, match=f"{len(data)} bytes; at most {len(data) - 1}"):
        unpack(data, max_bytes=len(data) - 1)


def test_a_key_of_any_length_gives_a_short_error() -> None:
    key = "k" * 100_000
    data = b"\x82" + msgpack.packb(key) + b"\x01" + msgpack.packb(key) + b"\x01"
    with pytest.raises(InvalidRequest) as caught:
        unpack(data, max_bytes=LIMIT)
    assert len(caught.value.message) < 300
    for bad in (b"\xff", b"\x91" * 20):
        with pytest.raises(InvalidRequest) as caught:
            unpack(b"\x81" + msgpack.packb(key) + (b"\xa1" + bad if bad == b"\xff" else bad + b"\xc0"), max_bytes=LIMIT)
        assert len(caught.value.message) < 300
