"""Reads the protobuf wire format from a file, a window at a time; owns the open file and nothing else.

Only what a reader that skips needs: tags, varints, and the bounds of length-delimited fields. Payloads that nobody asks
for are stepped over, never read, so a graph with 50 MB of constants inside costs a few kilobytes.
`pread` and not mmap: a file cut short while it is mapped ends the process with SIGBUS, which no `except` catches.
Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

WINDOW_BYTES = 64 * 1024
MAX_TEXT_BYTES = 16 * 1024  # one name
MAX_ALL_TEXT_BYTES = 32 * 1024 * 1024  # all names of one file
MAX_FIELDS = 300_000  # fields looked at in one file: bounds the time; a 32-layer model has some 20,000


class WireError(Exception):
    """The bytes are not what the wire format allows; the message says what and at which offset."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `value` holds the number of a VARINT, the payload is `[start, end)` of a BYTES field."""

    number: int
    kind: int
    value: int
    start: int
    end: int


class WireFile:
    """A file descriptor and the last window read from it. `close` it, or use it in a `with`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._window = b""
        self._window_start = 0
        self._fields_left = MAX_FIELDS
        self._text_left = MAX_ALL_TEXT_BYTES
        self.size = os.fstat(descriptor).st_size

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def text(self, field: Field) -> str:
        """The payload as UTF-8, at most `MAX_TEXT_BYTES`."""
        if field.kind != BYTES:
            raise WireError(f"text expected at byte {field.start}")
        length = field.end - field.start
        if length > MAX_TEXT_BYTES:
            raise WireError(f"a name of {length} bytes at byte {field.start}")
        self._text_left -= length
        if self._text_left < 0:
            raise WireError(f"more than {MAX_ALL_TEXT_BYTES} bytes of names")
        try:
            return self._read(field.start, length).decode()
        except UnicodeDecodeError as error:
            raise WireError(f"a name that is not UTF-8 at byte {field.start}") from error

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message that fills `[start, end)`, in file order; unknown ones included."""
        at = start
        while at < end:
            self._count_field()
            tag, at = self.varint(at, end)
            number, kind = tag >> 3, tag & 7
            if number == 0 or number >= 1 << 29:
                raise WireError(f"field number {number} at byte {at}")
            if kind == VARINT:
                value, after = self.varint(at, end)
                yield Field(number, kind, value, at, after)
            elif kind == BYTES:
                length, payload = self.varint(at, end)
                after = payload + length
                if after > end:
                    raise WireError(f"a field at byte {at} reaches {after - end} bytes past its end")
                yield Field(number, kind, 0, payload, after)
            elif kind in (FIXED64, FIXED32):
                after = at + (8 if kind == FIXED64 else 4)
                if after > end:
                    raise WireError(f"a number at byte {at} is cut short")
                yield Field(number, kind, 0, at, after)
            else:
                raise WireError(f"wire type {kind} at byte {at}")
            at = after

    def signed_numbers(self, field: Field) -> Iterator[int]:
        """A repeated int64 in either form, packed or one by one, as two's complement."""
        if field.kind == VARINT:
            yield signed(field.value)
            return
        if field.kind != BYTES:
            raise WireError(f"a number expected at byte {field.start}")
        at = field.start
        while at < field.end:
            self._count_field()
            value, at = self.varint(at, field.end)
            yield signed(value)

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at `at` and the offset after it; both stay below `end`. At most ten bytes, as the format says."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                raise WireError(f"a number is cut short at byte {at}")
            byte = self._byte(at)
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at
        raise WireError(f"a number of more than ten bytes before byte {at}")

    def _count_field(self) -> None:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise WireError(f"more than {MAX_FIELDS} fields")

    def _byte(self, at: int) -> int:
        index = at - self._window_start
        if not 0 <= index < len(self._window):
            self._window = self._pread(at, WINDOW_BYTES)
            self._window_start = at
            index = 0
        return self._window[index]

    def _read(self, at: int, length: int) -> bytes:
        index = at - self._window_start
        if index >= 0 and index + length <= len(self._window):
            return self._window[index : index + length]
        return self._pread(at, length)[:length] if length else b""

    def _pread(self, at: int, length: int) -> bytes:
        try:
            read = os.pread(self._descriptor, length, at)
        except OSError as error:
            raise WireError(f"cannot be read at byte {at}: {error.strerror}") from error
        if len(read) < min(length, self.size - at) or not read:
            raise WireError(f"ended at byte {at + len(read)} while it was read")
        return read


def signed(value: int) -> int:
    """int64 and int32 travel as 64-bit two's complement."""
    return value - (1 << 64) if value >= 1 << 63 else value
