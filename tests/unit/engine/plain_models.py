"""Small real ONNX models with their manifests, written into a folder: each does arithmetic that a test can do too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def write(
    folder: Path,
    nodes: list[Any],
    inputs: list[tuple[str, int, list[Any]]],
    outputs: list[tuple[str, int, list[Any]]],
    manifest: str,
    weights: dict[str, np.ndarray] | None = None,
) -> Path:
    """A folder with model.onnx and edged.toml."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    (folder / "edged.toml").write_text(manifest)
    return folder


def doubler(folder: Path, more: str = "") -> Path:
    """y = 2 x, of any number of rows of 3."""
    return write(
        folder,
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", FLOAT, ["batch", 3])],
        [("y", FLOAT, ["batch", 3])],
        more,
    )


def widener(folder: Path, width: int) -> Path:
    """y = x, `width` times: a few bytes ask for many."""
    return write(
        folder,
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        [("x", FLOAT, ["batch", 1])],
        [("y", FLOAT, ["batch", width])],
        "",
        {"shape": np.array([1, width], np.int64)},
    )


def mean_colour(folder: Path, batch: Any = "batch", more: str = "") -> Path:
    """Classes red, green, blue: the mean of each channel of an image of 4 x 4."""
    return write(
        folder,
        [helper.make_node("ReduceMean", ["pixels"], ["scores"], axes=[2, 3], keepdims=0)],
        [("pixels", FLOAT, [batch, 3, 4, 4])],
        [("scores", FLOAT, [batch, 3])],
        '[image]\nsize = [4, 4]\n[classify]\nactivation = "none"\nlabels = ["red", "green", "blue"]\n' + more,
    )


def four_boxes(folder: Path) -> Path:
    """Always the same rows of (cx, cy, w, h, score of a, score of b) in an image of 100 x 100: two overlap."""
    rows = np.array(
        [[[30, 30, 20, 20, 0.9, 0.1], [32, 30, 20, 20, 0.8, 0.1], [70, 60, 40, 20, 0.2, 0.7], [5, 5, 4, 4, 0.1, 0.1]]],
        np.float32,
    )
    return write(
        folder,
        [
            helper.make_node("ReduceMean", ["pixels"], ["zero"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Mul", ["zero", "nothing"], ["gone"]),
            helper.make_node("Reshape", ["gone", "shape"], ["column"]),
            helper.make_node("Add", ["column", "rows"], ["found"]),
        ],
        [("pixels", FLOAT, ["batch", 3, 100, 100])],
        [("found", FLOAT, ["batch", 4, 6])],
        '[image]\nsize = [100, 100]\nfit = "pad"\n[detect]\noutput = "found"\nbox = "cxcywh"\nlabels = ["a", "b"]\n',
        {
            "rows": rows,
            "nothing": np.zeros(1, np.float32),
            "shape": np.array([-1, 1, 1], np.int64),
        },
    )


WORDS = ("[PAD]", "[UNK]", "pump", "fan", "is", "hot", "cold", "the")


def embedder(folder: Path, more: str = "") -> Path:
    """Rows of a fixed table, one for each word; its width is 4."""
    table = np.random.default_rng(3).normal(size=(len(WORDS), 4)).astype(np.float32)
    write(
        folder,
        [helper.make_node("Gather", ["table", "input_ids"], ["hidden"])],
        [("input_ids", INT64, ["batch", "tokens"])],
        [("hidden", FLOAT, ["batch", "tokens", 4])],
        f"[embed]\n{more}",
        {"table": table},
    )
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(WORDS)}, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


def word_vectors() -> np.ndarray:
    """The table of `embedder`."""
    return np.random.default_rng(3).normal(size=(len(WORDS), 4)).astype(np.float32)
