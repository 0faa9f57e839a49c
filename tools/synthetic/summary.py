"""What of a graph is compared with the model builder's: everything but the weights' values and the inferred shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

SMALL = 16  # tensors up to this many elements are kept whole


def summarize(model: onnx.ModelProto) -> dict[str, Any]:
    """Plain data, ready for JSON: versions, inputs, outputs, weights without their values, nodes; all in file order."""
    return {
        "ir_version": model.ir_version,
        "opsets": {opset.domain: opset.version for opset in model.opset_import},
        "inputs": [_value(value) for value in model.graph.input],
        "outputs": [_value(value) for value in model.graph.output],
        "weights": [
            {"name": tensor.name, "dtype": _dtype(tensor.data_type), "dims": list(tensor.dims)}
            for tensor in model.graph.initializer
        ],
        "nodes": [_node(node) for node in model.graph.node],
    }


def _value(value: onnx.ValueInfoProto) -> dict[str, Any]:
    tensor = value.type.tensor_type
    dims = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    return {"name": value.name, "dtype": _dtype(tensor.elem_type), "dims": dims}


def _node(node: onnx.NodeProto) -> dict[str, Any]:
    return {
        "op_type": node.op_type,
        "domain": node.domain,
        "name": node.name,
        "inputs": list(node.input),
        "outputs": list(node.output),
        "attributes": {attribute.name: _attribute(attribute) for attribute in sorted(node.attribute, key=_name)},
    }


def _name(attribute: AttributeProto) -> str:
    return str(attribute.name)


def _attribute(attribute: AttributeProto) -> Any:
    if attribute.type == AttributeProto.TENSOR:
        return _tensor(attribute.t)
    if attribute.type == AttributeProto.GRAPH:
        graph = attribute.g
        return {"outputs": [_value(value) for value in graph.output], "nodes": [_node(node) for node in graph.node]}
    value = helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _tensor(tensor: TensorProto) -> dict[str, Any]:
    """Small ones whole; of a table the corners of its first, second and last row, to three decimals."""
    values = numpy_helper.to_array(tensor)
    kept = values if values.size <= SMALL else values[[0, 1, -1]][:, [0, 1, -1]]
    return {"dtype": _dtype(tensor.data_type), "dims": list(tensor.dims), "values": np.round(kept, 3).tolist()}


def _dtype(number: int) -> str:
    return str(TensorProto.DataType.Name(number))
