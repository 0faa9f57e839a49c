"""Writes random weights into the data file, a piece at a time; owns the open file and the random stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import numpy as np
import onnx

PIECE_BYTES = 32 * 1024 * 1024
INT4_STD = 4.32  # of the nibbles 1..15 minus 8, drawn as below

# Nibble 0 (−8) becomes 8 (0), so that the weights' mean is zero.
_BALANCED = np.array(
    [((byte >> 4) or 8) << 4 | ((byte & 15) or 8) for byte in range(256)],
    dtype=np.uint8,
)


class WeightFile:
    """Appends tensors to `file` and returns, for each, the TensorProto that points at it."""

    def __init__(self, file: BinaryIO, name: str, seed: int, progress: Callable[[int], None]) -> None:
        self._file = file
        self._name = name
        self._random = np.random.Generator(np.random.SFC64(seed))
        self._progress = progress
        self.size = 0

    def normal(self, name: str, shape: tuple[int, int], std: float) -> onnx.TensorProto:
        """float32, normal with mean 0."""
        start = self.size
        for rows in self._pieces(shape[0], shape[1] * 4):
            self._append(self._random.standard_normal((rows, shape[1]), dtype=np.float32) * np.float32(std))
        return self._pointer(name, onnx.TensorProto.FLOAT, shape, start)

    def array(self, name: str, values: np.ndarray) -> onnx.TensorProto:
        """The given float32 values."""
        start = self.size
        self._append(values.astype(np.float32))
        return self._pointer(name, onnx.TensorProto.FLOAT, values.shape, start)

    def int4(self, name: str, blocks: tuple[int, int, int]) -> onnx.TensorProto:
        """Packed int4 `[N, K / block, block / 2]`, as MatMulNBits takes its B."""
        start = self.size
        row_bytes = blocks[1] * blocks[2]
        for rows in self._pieces(blocks[0], row_bytes):
            drawn = np.frombuffer(self._random.bytes(rows * row_bytes), dtype=np.uint8)
            self._append(_BALANCED[drawn])
        return self._pointer(name, onnx.TensorProto.UINT8, blocks, start)

    def scales(self, name: str, shape: tuple[int, int], std: float, silent_rows: range) -> onnx.TensorProto:
        """float32 scales `[N, K / block]` that give the weights the standard deviation `std`; 0 in `silent_rows`."""
        values = self._random.uniform(0.8, 1.2, shape).astype(np.float32) * np.float32(std / INT4_STD)
        values[silent_rows.start : silent_rows.stop] = 0
        return self.array(name, values)

    def _pieces(self, rows: int, row_bytes: int) -> list[int]:
        step = max(1, PIECE_BYTES // row_bytes)
        return [min(step, rows - at) for at in range(0, rows, step)]

    def _append(self, values: np.ndarray) -> None:
        self._file.write(values.data)
        self.size += values.nbytes
        self._progress(self.size)

    def _pointer(self, name: str, dtype: int, shape: tuple[int, ...], start: int) -> onnx.TensorProto:
        tensor = onnx.TensorProto(name=name, data_type=dtype, dims=shape, data_location=onnx.TensorProto.EXTERNAL)
        for key, value in (("location", self._name), ("offset", start), ("length", self.size - start)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor
