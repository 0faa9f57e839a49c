"""One pass over an ONNX file: which fields are looked into and which are stepped over. Field numbers: onnx.proto."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from edged.store.graph_types import DTYPE_BITS, DTYPE_NAMES, ExternalTensor, Graph, Node, TensorInfo
from edged.store.wire import BYTES, VARINT, Field, WireError, WireFile, signed

MAX_NESTING = 6  # graphs inside `If` and `Loop`
MAX_RANK = 32


def walk_model(wire: WireFile) -> Graph:
    """The one graph of a ModelProto. Raises WireError when the bytes are not a whole one."""
    return _Walk(wire).model()


class _Walk:
    """Owns what is collected across all levels of one file: operator domains and weights kept elsewhere."""

    def __init__(self, wire: WireFile) -> None:
        self._wire = wire
        self._domains: set[str] = set()
        self._external: list[ExternalTensor] = []

    def model(self) -> Graph:
        graphs, has_version = [], False
        for field in self._wire.fields(0, self._wire.size):
            if field.number == 1:
                has_version = field.kind == VARINT
            elif field.number == 7:
                graphs.append(field)
            elif field.number == 25:
                for part in self._fields(field):
                    if part.number == 7:  # FunctionProto.node
                        self._node(part, depth=1)
        if len(graphs) != 1 or not has_version:
            raise WireError(f"{len(graphs)} graphs and {'an' if has_version else 'no'} IR version")
        inputs, outputs, nodes = self._graph(graphs[0], depth=0)
        if not nodes or not outputs:
            raise WireError("a graph without nodes or outputs")
        return Graph(inputs, outputs, nodes, frozenset(self._domains), tuple(self._external))

    def _graph(
        self, graph: Field, depth: int
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...], tuple[Node, ...]]:
        if depth > MAX_NESTING:
            raise WireError(f"graphs nested more than {MAX_NESTING} deep")
        inputs, outputs, nodes = [], [], []
        for field in self._fields(graph):
            if field.number == 1:
                nodes.append(self._node(field, depth))
            elif field.number == 5:
                self._weight(field)
            elif field.number == 11:
                inputs.append(self._tensor_info(field))
            elif field.number == 12:
                outputs.append(self._tensor_info(field))
            elif field.number == 15:  # SparseTensorProto: values, indices
                for part in self._fields(field):
                    if part.number in (1, 2):
                        self._weight(part)
        return tuple(inputs), tuple(outputs), tuple(nodes)

    def _node(self, node: Field, depth: int) -> Node:
        name = op_type = domain = ""
        inputs, outputs = [], []
        branches: list[tuple[TensorInfo, ...]] = []
        for field in self._fields(node):
            if field.number == 1:
                inputs.append(self._wire.text(field))
            elif field.number == 2:
                outputs.append(self._wire.text(field))
            elif field.number == 3:
                name = self._wire.text(field)
            elif field.number == 4:
                op_type = self._wire.text(field)
            elif field.number == 5:
                branches.extend(self._attribute(field, depth))
            elif field.number == 7:
                domain = self._wire.text(field)
        if not op_type:
            raise WireError(f"a node without an operator before byte {node.end}")
        self._domains.add(domain)
        return Node(name, op_type, domain, tuple(inputs), tuple(outputs), tuple(branches))

    def _attribute(self, attribute: Field, depth: int) -> Iterator[tuple[TensorInfo, ...]]:
        for field in self._fields(attribute):
            if field.number in (5, 10):  # t, tensors
                self._weight(field)
            elif field.number in (6, 11):  # g, graphs
                yield self._graph(field, depth + 1)[1]

    def _weight(self, tensor: Field) -> None:
        """Keeps where a weight's bytes lie when they are in another file; steps over those in this one."""
        name, dtype, is_external = "", "", False
        dims: list[int] = []
        where: dict[str, str] = {}
        for field in self._fields(tensor):
            if field.number == 1:
                dims.extend(self._dims(field, len(dims)))
            elif field.number == 2:
                dtype = self._dtype(field)
            elif field.number == 8:
                name = self._wire.text(field)
            elif field.number == 13:
                key, value = self._pair(field)
                where[key] = value
            elif field.number == 14:
                is_external = self._number(field) == 1
        if is_external:
            self._external.append(_external_tensor(name, dtype, dims, where))

    def _dims(self, field: Field, rank: int) -> Iterator[int]:
        for dim in self._wire.signed_numbers(field):
            rank += 1
            if rank > MAX_RANK or dim < 0:
                raise WireError(f"a weight of {rank} dimensions, one of them {dim}, at byte {field.start}")
            yield dim

    def _tensor_info(self, value: Field) -> TensorInfo:
        name, dtype = "", ""
        dims: tuple[int | str, ...] = ()
        for field in self._fields(value):
            if field.number == 1:
                name = self._wire.text(field)
            elif field.number == 2:
                for kind in self._fields(field):
                    if kind.number == 1:  # TypeProto.tensor_type; sequences and maps are nothing a decoder takes
                        dtype, dims = self._tensor_type(kind)
        if not name:
            raise WireError(f"an input or output without a name before byte {value.end}")
        return TensorInfo(name, dtype, dims)

    def _tensor_type(self, tensor_type: Field) -> tuple[str, tuple[int | str, ...]]:
        dtype = ""
        dims: tuple[int | str, ...] = ()
        for field in self._fields(tensor_type):
            if field.number == 1:
                dtype = self._dtype(field)
            elif field.number == 2:
                dims = tuple(self._dim(part) for part in self._fields(field) if part.number == 1)
        return dtype, dims

    def _dim(self, dim: Field) -> int | str:
        size: int | str = ""
        for field in self._fields(dim):
            if field.number == 1:
                size = self._number(field)
            elif field.number == 2:
                size = self._wire.text(field)
        return size

    def _pair(self, pair: Field) -> tuple[str, str]:
        key = value = ""
        for field in self._fields(pair):
            if field.number == 1:
                key = self._wire.text(field)
            elif field.number == 2:
                value = self._wire.text(field)
        return key, value

    def _dtype(self, field: Field) -> str:
        number = self._number(field)
        return DTYPE_NAMES.get(number, f"type {number}")

    def _number(self, field: Field) -> int:
        if field.kind != VARINT:
            raise WireError(f"a number expected at byte {field.start}")
        return signed(field.value)

    def _fields(self, message: Field) -> Iterator[Field]:
        if message.kind != BYTES:
            raise WireError(f"a message expected at byte {message.start}")
        return self._wire.fields(message.start, message.end)


def _external_tensor(name: str, dtype: str, dims: list[int], where: dict[str, str]) -> ExternalTensor:
    """`offset` is 0 and `length` follows from shape and dtype when the file leaves them out, as onnx.proto allows."""
    if not where.get("location"):
        raise WireError(f"weight {name!r} does not say which file holds it")
    offset = _decimal(name, "offset", where.get("offset", "0"))
    if "length" in where:
        length = _decimal(name, "length", where["length"])
    elif dtype in DTYPE_BITS:
        length = (prod(dims) * DTYPE_BITS[dtype] + 7) // 8
    else:
        raise WireError(f"weight {name!r} says neither its length nor a known dtype")
    return ExternalTensor(name, where["location"], offset, length)


def _decimal(name: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise WireError(f"weight {name!r} has the {key} {text[:40]!r}")
    return int(text)
