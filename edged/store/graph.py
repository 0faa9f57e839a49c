"""What edged needs to know of an ONNX file, read without loading a weight; owns nothing.

Inputs and outputs (name, dtype, dimensions), the operators of its nodes, and which bytes of which data files the
weights need. Why not the `onnx` package: docs/adr/0002-graph-reader.md.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from edged.errors import ModelError
from edged.store.graph_types import ExternalTensor, Graph, Node, TensorInfo
from edged.store.graph_walk import walk_model
from edged.store.wire import WireError, WireFile

__all__ = ["ExternalTensor", "Graph", "Node", "TensorInfo", "read_graph"]

MAX_GRAPH_BYTES = 2**31  # protobuf itself ends there


def read_graph(folder: Path, file: str) -> Graph:
    """The graph of `folder/file`: one pass, weights stepped over.

    Raises ModelError when the file cannot be opened, is no ONNX model, is cut short, or passes a ceiling.
    """
    try:
        # O_NONBLOCK: opening a FIFO that somebody left there must not wait for its writer
        descriptor = os.open(folder / file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise ModelError(folder, file, f"cannot be opened ({getattr(error, 'strerror', error)})") from error
    with WireFile(descriptor) as wire:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ModelError(folder, file, "is not a regular file; copy the model again")
        if wire.size > MAX_GRAPH_BYTES:
            raise ModelError(folder, file, f"is {wire.size} bytes; an ONNX graph is at most {MAX_GRAPH_BYTES}")
        try:
            return walk_model(wire)
        except WireError as error:
            raise ModelError(folder, file, f"is not a whole ONNX model ({error}); copy it again") from error
