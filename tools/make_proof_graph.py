#!/usr/bin/env python3
"""Makes edged/hardware/data/proof-*.onnx and proof.npz: the smallest graph with what an int4 language model needs.

One attention block of a decoder: int4 MatMulNBits (packed QKV) -> GroupQueryAttention with rotary embedding, grouped
heads and a KV cache -> int4 MatMulNBits (output). It is run twice: eight tokens at once (prefill), then one (decode).
The expected answers are computed here with NumPy in float64, by no runtime, so that no provider is its own judge.

    python tools/make_proof_graph.py            # writes the files
    python tools/make_proof_graph.py --check    # fails if the files in the tree differ from what would be written

Needs `onnx` and `numpy`, nothing else. The files are data of the package: a few kilobytes each.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

DATA = Path(__file__).resolve().parent.parent / "edged" / "hardware" / "data"
HIDDEN, HEADS, KV_HEADS, HEAD = 64, 4, 2, 16
KV = KV_HEADS * HEAD
QKV = HIDDEN + 2 * KV
BLOCK = 32  # weights that share one scale
PREFILL, DECODE = 8, 1
CONTEXT = 16
SEED = 20240917

Floats = NDArray[np.float64]


def quantised(rng: np.random.Generator, columns: int) -> tuple[NDArray[np.uint8], NDArray[np.float16], Floats]:
    """Random int4 weights [columns, HIDDEN]: packed nibbles (low first), scales, and the same weights as float64.

    Layout and zero point (8) are those of com.microsoft.MatMulNBits.
    """
    blocks = HIDDEN // BLOCK
    nibbles = rng.integers(0, 16, size=(columns, blocks, BLOCK), dtype=np.uint8)
    scales = rng.uniform(0.01, 0.05, size=(columns, blocks)).astype(np.float16)
    packed = (nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)).astype(np.uint8)
    weights = (nibbles.astype(np.float64) - 8.0) * scales.astype(np.float64)[..., None]
    return packed, scales, weights.reshape(columns, HIDDEN)


def rotary_tables() -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """cos and sin [CONTEXT, HEAD/2] of the rotary embedding with base 10000."""
    angle = np.arange(CONTEXT)[:, None] / (10000.0 ** (np.arange(HEAD // 2) * 2 / HEAD))[None, :]
    return np.cos(angle).astype(np.float16), np.sin(angle).astype(np.float16)


def rotate(x: Floats, first: int, cos: Floats, sin: Floats) -> Floats:
    """Rotary embedding of x [tokens, heads, HEAD], halves not interleaved; the first token is at position `first`."""
    c, s = (t[first : first + len(x), None, :] for t in (cos, sin))
    a, b = x[..., : HEAD // 2], x[..., HEAD // 2 :]
    return np.concatenate([a * c - b * s, b * c + a * s], axis=-1)


def attend(q: Floats, k: Floats, v: Floats, first: int) -> Floats:
    """Causal grouped-query attention: q [tokens, HEADS, HEAD] over k, v [all tokens, KV_HEADS, HEAD]."""
    out = np.zeros_like(q)
    for head in range(HEADS):
        kv = head // (HEADS // KV_HEADS)
        scores = q[:, head] @ k[:, kv].T / np.sqrt(HEAD)
        for row in range(len(q)):
            scores[row, first + row + 1 :] = -np.inf
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, head] = (weights / weights.sum(axis=-1, keepdims=True)) @ v[:, kv]
    return out


def reference(x: Floats, w_qkv: Floats, w_out: Floats, cos: Floats, sin: Floats) -> Floats:
    """The whole graph in float64: prefill and decode give what one pass over all tokens gives."""
    tokens = len(x)
    q, k, v = np.split(x @ w_qkv.T, [HIDDEN, HIDDEN + KV], axis=-1)
    q = rotate(q.reshape(tokens, HEADS, HEAD), 0, cos, sin)
    k = rotate(k.reshape(tokens, KV_HEADS, HEAD), 0, cos, sin)
    attended = attend(q, k, v.reshape(tokens, KV_HEADS, HEAD), 0)
    return attended.reshape(tokens, HIDDEN) @ w_out.T


def graph(
    name: str,
    dtype: type,
    qkv: tuple[NDArray[np.uint8], NDArray[np.float16]],
    out: tuple[NDArray[np.uint8], NDArray[np.float16]],
    tables: tuple[NDArray[np.float16], ...],
) -> onnx.ModelProto:
    """The ONNX graph with floats of `dtype` (float32 for CPU-like providers, float16 for GPUs)."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    packed = {"qkv": (qkv, QKV), "out": (out, HIDDEN)}
    weights = []
    for key, ((nibbles, scales), _) in packed.items():
        weights += [
            numpy_helper.from_array(nibbles, f"{key}.weight"),
            numpy_helper.from_array(scales.astype(dtype), f"{key}.scales"),
        ]
    weights += [
        numpy_helper.from_array(table.astype(dtype), key) for table, key in zip(tables, ("cos", "sin"), strict=True)
    ]

    def matmul(key: str, source: str, target: str) -> onnx.NodeProto:
        return helper.make_node(
            "MatMulNBits",
            [source, f"{key}.weight", f"{key}.scales"],
            [target],
            name=key,
            domain="com.microsoft",
            K=HIDDEN,
            N=packed[key][1],
            bits=4,
            block_size=BLOCK,
        )

    nodes = [
        matmul("qkv", "x", "qkv_out"),
        helper.make_node(
            "GroupQueryAttention",
            ["qkv_out", "", "", "past_key", "past_value", "seqlens_k", "total_length", "cos", "sin"],
            ["attended", "present_key", "present_value"],
            name="attention",
            domain="com.microsoft",
            num_heads=HEADS,
            kv_num_heads=KV_HEADS,
            do_rotary=1,
            rotary_interleaved=0,
        ),
        matmul("out", "attended", "y"),
    ]
    tokens: list[str | int | None] = ["batch", "tokens", HIDDEN]
    cache: list[str | int | None] = ["batch", KV_HEADS, "past", HEAD]
    grown: list[str | int | None] = ["batch", KV_HEADS, "total", HEAD]
    inputs = [
        helper.make_tensor_value_info("x", kind, tokens),
        helper.make_tensor_value_info("past_key", kind, cache),
        helper.make_tensor_value_info("past_value", kind, cache),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("total_length", TensorProto.INT32, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("y", kind, tokens),
        helper.make_tensor_value_info("present_key", kind, grown),
        helper.make_tensor_value_info("present_value", kind, grown),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, name, inputs, outputs, weights),
        producer_name="edged",
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
    )
    model.ir_version = 9
    return model


def build() -> dict[str, bytes]:
    """File name to content, the same bytes on every run."""
    rng = np.random.default_rng(SEED)
    qkv, out = quantised(rng, QKV), quantised(rng, HIDDEN)
    tables = rotary_tables()
    x = rng.uniform(-1.0, 1.0, size=(PREFILL + DECODE, HIDDEN)).astype(np.float16)
    y = reference(x.astype(np.float64), qkv[2], out[2], *(t.astype(np.float64) for t in tables))
    files = {
        f"proof-{label}.onnx": graph(f"edged-proof-{label}", dtype, qkv[:2], out[:2], tables).SerializeToString(
            deterministic=True
        )
        for label, dtype in (("fp32", np.float32), ("fp16", np.float16))
    }
    buffer = io.BytesIO()
    np.savez(buffer, x=x, y=y.astype(np.float32), prefill=np.array(PREFILL), cache=np.array([KV_HEADS, HEAD]))
    files["proof.npz"] = buffer.getvalue()
    return files


def _same(name: str, left: bytes, right: bytes) -> bool:
    """Graphs to the byte; arrays by their values, as each zlib packs them in its own way."""
    if not name.endswith(".npz"):
        return left == right
    with np.load(io.BytesIO(left)) as one, np.load(io.BytesIO(right)) as other:
        return set(one) == set(other) and all(np.allclose(one[key], other[key], rtol=1e-6) for key in one)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare with the files in the tree, write nothing")
    check = arguments.parse_args().check
    different = []
    for name, content in build().items():
        target = DATA / name
        if check:
            if not target.is_file() or not _same(name, target.read_bytes(), content):
                different.append(name)
            continue
        target.write_bytes(content)
        print(f"{name}: {len(content)} bytes")
    for name in different:
        print(f"{name} differs from what tools/make_proof_graph.py makes: run it", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    raise SystemExit(main())
