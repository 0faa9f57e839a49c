"""Tensors on the wire: raw little-endian bytes in a frame, with dtype and shape beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.errors import InvalidRequest, TooLarge, Unsupported
from edged.store.graph_types import TensorInfo

Array = NDArray[Any]
DTYPES = frozenset(
    ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
)
MAX_REPLY_BYTES = 64 * 2**20


def read_inputs(
    given: Mapping[str, Mapping[str, Any]], frames: Sequence[bytes], wanted: Sequence[TensorInfo]
) -> dict[str, Array]:
    """The named tensors of a request, held against the graph's inputs. Raises InvalidRequest naming the tensor."""
    known = {tensor.name: tensor for tensor in wanted}
    for name in given:
        if name not in known:
            raise InvalidRequest(f"inputs.{name[:60]}: the model has no such input; it has: {', '.join(known)[:300]}")
    arrays = {}
    for tensor in wanted:
        if tensor.name not in given:
            raise InvalidRequest(f"inputs.{tensor.name[:60]}: missing; the model wants {described(tensor)}")
        arrays[tensor.name] = _read(tensor, given[tensor.name], frames)
    return arrays


def _read(tensor: TensorInfo, given: Mapping[str, Any], frames: Sequence[bytes]) -> Array:
    where, dtype, shape = f"inputs.{tensor.name[:60]}", given["dtype"], tuple(given["shape"])
    if dtype != tensor.dtype:
        raise InvalidRequest(f"{where}: dtype {dtype}, but the model wants {described(tensor)}")
    fits = len(shape) == len(tensor.dims) and all(
        has == want for has, want in zip(shape, tensor.dims, strict=True) if isinstance(want, int)
    )
    if not fits:
        raise InvalidRequest(f"{where}: shape {list(shape)}, but the model wants {described(tensor)}")
    data = frames[given["frame"]]
    need = math.prod(shape) * np.dtype(dtype).itemsize
    if len(data) != need:
        raise InvalidRequest(f"{where}: frame {given['frame']} has {len(data)} bytes; {need} belong to its shape")
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def pack_outputs(arrays: Mapping[str, Array]) -> tuple[dict[str, Any], tuple[bytes, ...]]:
    """The `outputs` map of a reply and its frames. Raises TooLarge, or Unsupported for a type that is not numbers."""
    total_bytes = sum(array.nbytes for array in arrays.values())
    if total_bytes > MAX_REPLY_BYTES:
        raise TooLarge(f"the answer has {total_bytes} bytes; at most {MAX_REPLY_BYTES} are sent")
    outputs: dict[str, Any] = {}
    frames: list[bytes] = []
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES:
            raise Unsupported(f"the model's output {name[:60]!r} is of type {array.dtype}, which is not sent")
        outputs[name] = {"dtype": array.dtype.name, "shape": list(array.shape), "frame": len(frames)}
        frames.append(np.ascontiguousarray(array).tobytes())
    return outputs, tuple(frames)


def described(tensor: TensorInfo) -> str:
    """For people: `float32 [batch, 3, 224, 224]`."""
    return f"{tensor.dtype} [{', '.join(str(dim) or '?' for dim in tensor.dims)}]"
