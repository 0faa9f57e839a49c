"""msgpack in and out: the only importer of msgpack.

`pack` writes one map; `unpack` reads one map from an untrusted peer and refuses what the contract refuses: anything
but a map, keys that are not text or come twice, ext types, text that is not UTF-8, nesting deeper than `max_depth`,
trailing bytes. Errors name the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgpack  # type: ignore[import-untyped]  # ships no types

from edged.errors import InvalidRequest

MAX_DEPTH = 16  # maps and lists inside each other, the request map counted
_SCALARS = frozenset((type(None), bool, int, float, bytes))


def pack(message: Mapping[str, Any]) -> bytes:
    """One message as msgpack bytes."""
    packed: bytes = msgpack.packb(message, use_bin_type=True)
    return packed


def unpack_trusted(data: bytes | memoryview) -> dict[str, Any]:
    """One map from our own other process: no checks beyond msgpack's own."""
    message: dict[str, Any] = msgpack.unpackb(data, raw=False, strict_map_key=False)
    return message


def unpack(data: bytes | memoryview, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """One map from an untrusted peer.

    Raises InvalidRequest, naming the field where there is one.
    """
    if len(data) > max_bytes:
        raise InvalidRequest(f"the request map has {len(data)} bytes; at most {max_bytes} are allowed")
    try:
        message = msgpack.unpackb(
            data,
            raw=False,
            unicode_errors="surrogateescape",  # bad bytes survive as lone surrogates, so that _check can name the field
            strict_map_key=True,
            object_pairs_hook=_unique_map,
            ext_hook=_refuse_ext,
        )
    except InvalidRequest:
        raise
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise InvalidRequest("the first frame is not one well-formed msgpack map") from error
    if not isinstance(message, dict):
        raise InvalidRequest("the first frame must be a msgpack map")
    _check(message, max_depth)
    return message


def _unique_map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[Any] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise InvalidRequest(f"{_shown(twice)}: this key comes twice")
    for key in made:
        if not isinstance(key, str):
            raise InvalidRequest("map keys must be text")
    return made


def _refuse_ext(code: int, data: bytes) -> Any:
    raise InvalidRequest(f"msgpack ext types are not used here (type {code})")


def _check(message: dict[str, Any], max_depth: int) -> None:
    """Walk without recursion: nesting, UTF-8, no timestamps or other objects that msgpack may make.

    Paths are made only for what holds more, so that a long list of numbers costs next to nothing.
    """
    todo: list[tuple[str, dict[str, Any] | list[Any], int]] = [("", message, 1)]
    while todo:
        path, holder, depth = todo.pop()
        if depth > max_depth:
            raise InvalidRequest(f"{_shown(path)}: nested deeper than {max_depth}")
        items: Iterable[tuple[str | int, Any]] = enumerate(holder)
        if isinstance(holder, dict):
            items = holder.items()
            if not all(map(_is_unicode, holder)):
                raise InvalidRequest(f"{_shown(path) or 'request'}: a key is not UTF-8")
        for key, value in items:
            kind = type(value)
            if kind is str:
                if not _is_unicode(value):
                    raise InvalidRequest(f"{_shown(_inside(path, key))}: text must be UTF-8")
            elif kind is dict or kind is list:
                todo.append((_inside(path, key), value, depth + 1))
            elif kind not in _SCALARS:
                raise InvalidRequest(f"{_shown(_inside(path, key))}: this msgpack type is not used here")


def _inside(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key[:120]}" if path else key[:120]


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: object) -> str:
    """A path short and clean enough to be put into an error."""
    return str(path)[:120].encode("utf-8", "replace").decode("utf-8")
