"""The graph reader agrees with the `onnx` package on whole files, and refuses everything else with a ModelError."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from edged.errors import ModelError
from edged.store.graph import ExternalTensor, Node, TensorInfo, read_graph
from edged.store.graph_walk import MAX_NESTING
from edged.store.wire import MAX_FIELDS, MAX_TEXT_BYTES

pytestmark = pytest.mark.aarch64

MUTATIONS = 3_000


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(payload)) + payload


VERSION = b"\x08\x0a"  # ModelProto.ir_version = 10
OUTPUT = message(12, message(1, b"logits"))
NODE = message(1, message(4, b"Add"))


def graph_file(folder: Path, data: bytes) -> Path:
    (folder / "model.onnx").write_bytes(data)
    return folder


@pytest.mark.parametrize("args", [("tiny",), ("tiny-gqa", "--pruned-head"), ("tiny-longrope",)])
def test_it_reads_what_the_onnx_package_reads(make_model: Callable[..., Path], args: tuple[str, ...]) -> None:
    folder = make_model(*args)
    graph = read_graph(folder, "model.onnx")
    theirs = onnx.load(folder / "model.onnx", load_external_data=False).graph

    def tensor(value: onnx.ValueInfoProto) -> TensorInfo:
        kind = value.type.tensor_type
        dtype = {1: "float32", 7: "int64"}[kind.elem_type]
        return TensorInfo(value.name, dtype, tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim))

    def node(value: onnx.NodeProto) -> Node:
        branches = tuple(tuple(map(tensor, part.g.output)) for part in value.attribute if part.HasField("g"))
        return Node(value.name, value.op_type, value.domain, tuple(value.input), tuple(value.output), branches)

    def external(value: onnx.TensorProto) -> ExternalTensor:
        where = {entry.key: entry.value for entry in value.external_data}
        return ExternalTensor(value.name, where["location"], int(where["offset"]), int(where["length"]))

    assert graph.inputs == tuple(map(tensor, theirs.input))
    assert graph.outputs == tuple(map(tensor, theirs.output))
    assert graph.nodes == tuple(map(node, theirs.node))
    assert graph.external == tuple(map(external, theirs.initializer))
    assert graph.domains == {"", "com.microsoft"}


def test_a_mutated_file_is_described_or_refused(make_model: Callable[..., Path], tmp_path: Path) -> None:
    original = (make_model("tiny", "--layers", "1") / "model.onnx").read_bytes()
    chance = random.Random(20)
    refused = 0
    for _ in range(MUTATIONS):
        data = bytearray(original)
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(data))
            match chance.randrange(6):
                case 0:
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    data[at] = chance.choice((0, 0x7F, 0x80, 0xFF))
                case 2:
                    del data[at + 1 : at + chance.choice((2, 3, 100))]
                case 3:
                    data[at:at] = chance.randbytes(chance.choice((1, 9, 100)))
                case 4:
                    data[at : at + 10] = b"\xff" * 9 + b"\x01"
                case _:
                    del data[max(1, at) :]
        try:
            graph = read_graph(graph_file(tmp_path, bytes(data)), "model.onnx")
            assert graph.nodes
            assert graph.outputs
        except ModelError:
            refused += 1
    assert refused > MUTATIONS // 3


def test_every_truncation_is_refused(make_model: Callable[..., Path], tmp_path: Path) -> None:
    original = (make_model("tiny", "--layers", "1") / "model.onnx").read_bytes()
    graph_bytes = onnx.load_from_string(original).graph.ByteSize()
    end_of_graph = original.index(onnx.load_from_string(original).graph.SerializeToString()) + graph_bytes
    for length in range(0, end_of_graph, 23):
        with pytest.raises(ModelError):
            read_graph(graph_file(tmp_path, original[:length]), "model.onnx")


def nested(levels: int) -> bytes:
    inner = NODE + OUTPUT
    for _ in range(levels):
        inner = message(1, message(4, b"If") + message(5, message(6, inner))) + OUTPUT
    return VERSION + message(7, inner)


def test_graphs_nest_up_to_the_ceiling(tmp_path: Path) -> None:
    assert read_graph(graph_file(tmp_path, nested(MAX_NESTING)), "model.onnx").nodes[0].op_type == "If"
    for levels in (MAX_NESTING + 1, 500):
        with pytest.raises(ModelError, match="nested more than"):
            read_graph(graph_file(tmp_path, nested(levels)), "model.onnx")


def weight(*fields: bytes) -> bytes:
    return VERSION + message(7, NODE + OUTPUT + message(5, b"".join(fields)))


def where(**entries: str) -> bytes:
    return b"\x70\x01" + b"".join(
        message(13, message(1, key.encode()) + message(2, value.encode())) for key, value in entries.items()
    )


BOMBS = {
    "empty": b"",
    "zeros": bytes(4096),
    "text": b"PK\x03\x04 this is no model" * 10,
    "a length of 2^60": VERSION + b"\x3a" + varint(1 << 60),
    "an endless number": VERSION + b"\x3a" + b"\x80" * 200,
    "a group": VERSION + b"\x3b\x3c",
    "field number 0": VERSION + b"\x02\x00",
    "two graphs": VERSION + 2 * message(7, NODE + OUTPUT),
    "no version": message(7, NODE + OUTPUT),
    "no nodes": VERSION + message(7, OUTPUT),
    "a node without operator": VERSION + message(7, message(1, message(3, b"name")) + OUTPUT),
    "a graph that is a number": VERSION + b"\x38\x01",
    "a name that is a number": VERSION + message(7, message(1, b"\x20\x01") + OUTPUT),
    "a name that is not UTF-8": VERSION + message(7, message(1, message(4, b"\xff\xfe")) + OUTPUT),
    "a long name": VERSION + message(7, message(1, message(4, b"x" * (MAX_TEXT_BYTES + 1))) + OUTPUT),
    "too much text": VERSION + message(7, message(1, message(4, b"x" * MAX_TEXT_BYTES)) * 2_100 + OUTPUT),
    "too many fields": VERSION + b"\x10\x01" * MAX_FIELDS,
    "too many dimensions": weight(b"\x08\x01" * 40),
    "a negative dimension": weight(message(1, varint((1 << 64) - 5)), where(location="x")),
    "a weight nowhere": weight(where(offset="0")),
    "a weight at -1": weight(where(location="x", offset="-1")),
    "a weight of 10^5000 bytes": weight(where(location="x", length="9" * 5_000)),
    "a weight of unknown size": weight(b"\x10\x63", where(location="x")),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_within_its_ceilings(name: str, tmp_path: Path) -> None:
    graph_file(tmp_path, BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            read_graph(tmp_path, "model.onnx")
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert caught.value.file == "model.onnx"
    assert "copy it again" in caught.value.reason


def test_a_weight_without_a_length_takes_it_from_its_shape(tmp_path: Path) -> None:
    int4 = weight(b"\x08\x07", b"\x08\x03", b"\x10\x16", message(8, b"w"), where(location="w.data", offset="8"))
    graph_file(tmp_path, int4)
    assert read_graph(tmp_path, "model.onnx").external == (ExternalTensor("w", "w.data", 8, 11),)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for file in ("folder", "pipe", "missing", "nul\0", "x" * 300):
        with pytest.raises(ModelError):
            read_graph(tmp_path, file)
