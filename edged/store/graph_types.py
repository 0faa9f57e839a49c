"""The facts read from an ONNX file, and its element types: their numbers, names and sizes. Source: onnx.proto."""

from __future__ import annotations

from dataclasses import dataclass

DTYPE_NAMES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1",
}  # fmt: skip

DTYPE_BITS = {
    "float32": 32, "uint8": 8, "int8": 8, "uint16": 16, "int16": 16, "int32": 32, "int64": 64, "bool": 8,
    "float16": 16, "float64": 64, "uint32": 32, "uint64": 64, "complex64": 64, "complex128": 128, "bfloat16": 16,
    "float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8, "float8e5m2fnuz": 8, "uint4": 4, "int4": 4,
    "float4e2m1": 4,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output: `dims` holds a number, or a name ("" if there is none) for a size known only at run time."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A weight kept in another file: it needs the bytes `[offset, offset + length)` of `file`."""

    name: str
    file: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Node:
    """One operator. `branches` are the outputs of the graphs inside an `If` or `Loop`, one tuple for each graph."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    branches: tuple[tuple[TensorInfo, ...], ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """The outside of a model. `nodes` are those of the top level; `domains` and `external` are those of every level."""

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: tuple[Node, ...]
    domains: frozenset[str]
    external: tuple[ExternalTensor, ...]
