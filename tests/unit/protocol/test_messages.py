"""Every op, every field, every wrong value: generated from the types themselves, so that no new field is forgotten."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter

from edged.errors import REQUEST_ERRORS, InvalidRequest
from edged.protocol.messages import _TYPES, OPS, error_fields, parse_request, reply, request_id

MINIMAL: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "hi"}]},
    "generate": {"prompt": "hi"},
    "tokenize": {"text": "hi"},
    "infer": {"image": 0},
    "embed": {"input": "hi"},
    "cancel": {"target": 1},
    "session.close": {"session": "s"},
    "hello": {},
    "ping": {},
    "status": {},
    "models": {},
    "load": {"model": "m"},
    "unload": {"model": "m"},
    "update.status": {},
    "update.check": {},
    "update.apply": {},
    "update.rollback": {},
    "update.hold": {},
}
HUGE = {"2^31": 2**31, "2^63": 2**63, "NaN": math.nan, "inf": math.inf, "-inf": -math.inf}
WRONG = {
    "one as float": 1.0,
    "null": None,
    "bool": True,
    "text": "wrong",
    "list": [[]],
    "map": {"no": 1},
    "bytes": b"x",
    "float": 1.5,
}


def _base(op: str) -> dict[str, Any]:
    return {"v": 1, "id": 1, "op": op, **MINIMAL[op]}


def _schema(op: str) -> dict[str, Any]:
    adapter: TypeAdapter[Any] = _TYPES[op]
    return adapter.json_schema()


def _variants(schema: dict[str, Any], root: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The plain types a field may have."""
    if "$ref" in schema:
        yield from _variants(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    elif "anyOf" in schema:
        for inner in schema["anyOf"]:
            yield from _variants(inner, root)
    else:
        yield schema


def _accepts(kinds: list[dict[str, Any]], value: Any) -> bool:
    """Whether the schema itself allows a value of this sort here (what the case would be wrong to call wrong)."""
    types = {kind.get("type") for kind in kinds}
    if isinstance(value, bool):
        return "boolean" in types
    if value is None:
        return "null" in types
    if isinstance(value, (int, float)):
        for kind in (kind for kind in kinds if "const" not in kind):
            if kind.get("type") == "number" or (kind.get("type") == "integer" and isinstance(value, int)):
                low, high = kind.get("minimum", kind.get("exclusiveMinimum")), kind.get("maximum")
                if math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high):
                    return True
        return False
    if isinstance(value, str):
        return any(kind.get("type") == "string" and "enum" not in kind and "const" not in kind for kind in kinds)
    if isinstance(value, dict):
        return any(kind.get("type") == "object" and kind.get("additionalProperties") is True for kind in kinds)
    return False


def _cases() -> Iterator[Any]:
    for op in OPS:
        schema = _schema(op)
        for field, described in schema["properties"].items():
            if field == "op":
                continue
            kinds = list(_variants(described, schema))
            values = dict(WRONG) | HUGE | {"-1": -1}
            for kind in kinds:
                if kind.get("type") in ("integer", "number") and "const" not in kind:
                    assert "minimum" in kind or "exclusiveMinimum" in kind, f"{op}.{field} has no minimum"
                    assert "maximum" in kind, f"{op}.{field} has no maximum"
                    values["min-1"] = kind["minimum"] - 1 if "minimum" in kind else kind["exclusiveMinimum"]
                    values["max+1"] = kind["maximum"] + 1
            for name, value in values.items():
                if not _accepts(kinds, value):
                    yield pytest.param(op, field, value, id=f"{op}-{field}-{name}")


def test_every_op_has_an_example_here() -> None:
    assert set(OPS) <= set(MINIMAL)
    for op in OPS:
        assert parse_request(_base(op)).op == op


@pytest.mark.parametrize(("op", "field", "value"), list(_cases()))
def test_a_wrong_value_is_refused_by_its_field(op: str, field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(_base(op) | {field: value})
    assert caught.value.message.startswith(field)


@pytest.mark.parametrize("op", OPS)
def test_a_missing_field_is_named_and_an_unknown_one_too(op: str) -> None:
    for field in _schema(op)["required"]:
        message = _base(op)
        del message[field]
        with pytest.raises(InvalidRequest, match=f"^{field}"):
            parse_request(message)
    with pytest.raises(InvalidRequest, match=r"^colour: Extra inputs"):
        parse_request(_base(op) | {"colour": "red"})


@pytest.mark.parametrize("op", [None, 7, "", "CHAT", "x" * 1000, ["chat"], True])
def test_an_op_that_is_none(op: object) -> None:
    with pytest.raises(InvalidRequest, match=r"^op:") as caught:
        parse_request({"v": 1, "id": 1, "op": op})
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("field", [name for name in _schema("chat")["properties"] if name != "op"])
def test_limits_themselves_are_allowed(field: str) -> None:
    schema = _schema("chat")
    for kind in _variants(schema["properties"][field], schema):
        for bound in ("minimum", "maximum"):
            if bound in kind:
                parse_request(_base("chat") | {field: kind[bound]})


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        ([{"role": "user"}], "messages.0.content"),
        ([{"content": "x"}], "messages.0.role"),
        ([{"role": "king", "content": "x"}], "messages.0.role"),
        ([{"role": "user", "content": 7}], "messages.0.content"),
        ([{"role": "user", "content": None}], "messages.0.content"),
        ([{"role": "user", "content": []}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "smell"}]}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "image", "frame": -1}]}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "image", "frame": 256}]}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "text", "text": "a\0b"}]}], "messages.0.content"),
        ([{"role": "user", "content": "x", "name": "bob"}], "messages.0.name"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "messages"),
        ([{"role": "user", "content": "x"}] * 4097, "messages"),
        ([[]], "messages.0"),
    ],
)
def test_messages_are_checked_inside(messages: Any, named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_request(_base("chat") | {"messages": messages})
    assert caught.value.message.startswith(named)
    assert "function-" not in caught.value.message  # no word of how it is checked


@pytest.mark.parametrize("stop", [[], "x", ["x"] * 8, ["x" * 256]])
def test_stops_that_are_fine(stop: Any) -> None:
    parse_request(_base("chat") | {"stop": stop})


@pytest.mark.parametrize("stop", ["", [""], ["x"] * 9, ["x" * 257], [7], "a\0", ["\0"]])
def test_stops_that_are_not(stop: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^stop"):
        parse_request(_base("chat") | {"stop": stop})


@pytest.mark.parametrize("good", [0, -1, 2**63 - 1, "a", "", "x" * 64, "é" * 32])
def test_ids_to_answer_under(good: int | str) -> None:
    assert parse_request(_base("ping") | {"id": good}).id == good
    assert request_id({"id": good}) == good


@pytest.mark.parametrize("bad", [None, True, 1.0, "x" * 65, "é" * 33, [1], b"x", {}])
def test_ids_that_are_none(bad: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^id"):
        parse_request(_base("ping") | {"id": bad})
    assert request_id({"id": bad}) is None


def test_requests_cannot_be_changed() -> None:
    request = parse_request(_base("chat"))
    with pytest.raises(ValueError, match="frozen"):
        request.id = 2


@pytest.mark.parametrize("kind", REQUEST_ERRORS.values())
def test_an_error_says_all_a_client_needs(kind: Any) -> None:
    fields = error_fields(kind("what to do", retry_after_ms=5))
    assert fields["code"] in REQUEST_ERRORS
    sent = reply(7, "error", **fields)
    assert sent == {
        "v": 1,
        "id": 7,
        "ev": "error",
        "code": kind.code,
        "message": "what to do",
        "retryable": kind.retryable,
        "retry_after_ms": 5,
    }
