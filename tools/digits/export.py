"""The trained arrays as an ONNX graph, and that graph in int8: weights and activations quantized (QDQ form)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT = "pixels", "scores"


def float_graph(weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """[batch, 1, 8, 8] ink from 0 to 1 → [batch, 10] scores before softmax."""
    nodes = [
        helper.make_node("Conv", [INPUT, "conv1_w", "conv1_b"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "conv2_w", "conv2_b"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("MaxPool", ["r2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "dense1_w", "dense1_b"], ["d1"], transB=1),
        helper.make_node("Relu", ["d1"], ["r3"]),
        helper.make_node("Gemm", ["r3", "dense2_w", "dense2_b"], [OUTPUT], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="edged")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model


def write_int8(model: onnx.ModelProto, images: NDArray[np.float32], target: Path) -> None:
    """Quantize, with ranges as seen on `images` [n, 8, 8], and write `target`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """One batch after the other."""

        def __init__(self) -> None:
            self._batches: Iterator[NDArray[Any]] = iter(np.array_split(images[:, None], 16))

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {INPUT: batch}

    with tempfile.TemporaryDirectory(prefix="edged-digits-") as folder:
        plain = Path(folder) / "plain.onnx"
        onnx.save(model, plain)
        quantize_static(
            plain,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    written = onnx.load(target)
    for kept in list(written.graph.value_info):
        written.graph.value_info.remove(kept)
    written.ClearField("doc_string")
    onnx.save(written, target)
