"""Writes a trained model as the three graphs of Phi-3-vision and their configuration, as onnxruntime-genai loads them.

The decoder goes through onnxruntime-genai's own builder; encoder and embedding are small and written node by node.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM

from nano.tokenizer import save_tokenizer
from nano_vision.model import CELLS, GRID, MOST_IMAGES, ConvNorm, NanoVision

if TYPE_CHECKING:
    from nano_vision.training import Run

CONTEXT_TOKENS = 4096
MOST_CROPS = 1
OPSET = 17
PROCESSOR: dict[str, Any] = {
    "processor": {
        "name": "image_processing",
        "transforms": [
            {
                "operation": {
                    "name": name,
                    "domain": "com.microsoft.extensions",
                    "type": kind,
                    **({"attrs": attributes} if attributes else {}),
                }
            }
            for name, kind, attributes in (
                ("decode_image", "DecodeImage", {"color_space": "BGR"}),
                ("convert_to_rgb", "ConvertRGB", {}),
                ("phi3_image_transform", "Phi3ImageTransform", {"num_crops": MOST_CROPS, "num_img_tokens": CELLS}),
            )
        ],
    }
}


class _Graph:
    """Nodes and weights of one graph in the making."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, value: Tensor | np.ndarray[Any, Any] | list[int]) -> str:
        if isinstance(value, Tensor):
            value = value.detach().float().numpy()
        elif isinstance(value, list):
            value = np.array(value, dtype=np.int64)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"/{name}", **attributes))
        return name

    def save(self, path: Path, inputs: list[Any], outputs: list[Any]) -> None:
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def export(run: Run, out: Path, precision: str) -> None:
    """Write the whole model folder; README.md and golden.json of an older one are kept."""
    run.model.eval()
    aside = out.parent / f".{out.name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        _decoder(run, Path(scratch), aside, precision)
    vision_graph(run.model, aside / "vision.onnx")
    embedding_graph(run.model, aside / "embedding.onnx")
    save_tokenizer(run.tokenizer, aside)
    (aside / "processor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n", encoding="utf-8")
    _finish_config(aside / "genai_config.json")
    for kept in ("README.md", "golden.json"):
        if (out / kept).exists():
            shutil.copyfile(out / kept, aside / kept)
    old = out.parent / f".{out.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(aside, out)
    shutil.rmtree(old, ignore_errors=True)


def _decoder(run: Run, scratch: Path, out: Path, precision: str) -> None:
    shape, tokenizer = run.shape, run.tokenizer
    ends = [tokenizer.token_to_id("<|end|>"), tokenizer.token_to_id("<|endoftext|>")]
    config = Phi3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=CONTEXT_TOKENS,
        original_max_position_embeddings=CONTEXT_TOKENS,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=ends,
        pad_token_id=ends[1],
        tie_word_embeddings=False,
    )
    theirs = Phi3ForCausalLM(config).float()
    state = {name: value for name, value in run.model.state_dict().items() if name.startswith(("model.", "lm_head."))}
    theirs.load_state_dict(state)
    run.model.quantise(False)
    x = run.model.model.embed_tokens(torch.arange(3, 60)[None])
    mask = torch.ones(1, 1, 57, 57, dtype=torch.bool).tril()
    with torch.no_grad():
        ours = run.model.lm_head(run.model.model(x, torch.arange(57)[None], mask))
        difference = (theirs(inputs_embeds=x).logits - ours).abs().max().item()
    if difference > 1e-2:
        raise RuntimeError(f"the exported decoder differs from the trained one by {difference}")
    theirs.save_pretrained(scratch)
    save_tokenizer(tokenizer, scratch)
    options = ["exclude_embeds=true"] + (["accuracy_level=4", "block_size=32"] if precision == "int4" else [])
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(scratch), "-o", str(out)]
    command += ["-p", precision, "-e", "cpu", "-c", str(scratch / "cache"), "--extra_options", *options]
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the model builder failed:\n{done.stderr[-3000:]}")


def _finish_config(path: Path) -> None:
    """From what the builder writes for a decoder to a whole phi3v."""
    config = json.loads(path.read_text(encoding="utf-8"))
    model = config["model"]
    model["type"] = "phi3v"
    model["decoder"]["inputs"].pop("input_ids", None)
    model["decoder"]["inputs"]["inputs_embeds"] = "inputs_embeds"
    model["embedding"] = {
        "filename": "embedding.onnx",
        "inputs": {"input_ids": "input_ids", "image_features": "image_features"},
        "outputs": {"inputs_embeds": "inputs_embeds"},
    }
    model["vision"] = {
        "filename": "vision.onnx",
        "inputs": {"pixel_values": "pixel_values", "image_sizes": "image_sizes"},
        "outputs": {"image_features": "image_features"},
    }
    config["search"]["do_sample"] = False
    path.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def vision_graph(model: NanoVision, path: Path) -> None:
    """pixel_values [n, squares + 1, 3, 336, 336], image_sizes [n, 2] -> image_features [tokens, hidden].

    All pictures of one call have the same size. The first square is the small view of the whole picture.
    """
    graph, hidden = _Graph(), model.projector.cell.out_features
    one, zero = graph.weight("one", [1]), graph.weight("zero", [0])
    two = graph.weight("two", [2])
    grid, cells = graph.weight("grid", [GRID]), graph.weight("cells", [CELLS])
    width = graph.weight("hidden", [hidden])
    # squares of a picture, from the first one's size
    sizes = graph.node("Slice", ["image_sizes", zero, one, zero], "first_size")
    squares = graph.node("Div", [graph.node("Reshape", [sizes, graph.weight("minus_one", [-1])], "size"),
                                 graph.weight("side", [336])], "squares")  # fmt: skip
    rows = graph.node("Slice", [squares, zero, one, zero], "rows")
    columns = graph.node("Slice", [squares, one, two, zero], "columns")
    count = graph.node("Mul", [rows, columns], "count")
    used = graph.node("Add", [count, one], "used")
    shape = graph.node("Shape", ["pixel_values"], "pixels_shape")
    images = graph.node("Slice", [shape, zero, one, zero], "images")
    pixels = graph.node("Slice", ["pixel_values", zero, used, one], "pixels")
    flat = graph.node("Reshape", [pixels, graph.weight("flat_pixels", [-1, 3, 336, 336])], "flat")
    features = _encoder(graph, model, flat)
    # [n, squares + 1, 144, hidden], with the place of each cell
    projected = graph.node("MatMul", [features, graph.weight("cell.weight", model.projector.cell.weight.T)], "mapped")
    place = model.projector.place + model.projector.cell.bias
    placed = graph.node("Add", [projected, graph.weight("place", place)], "placed")
    minus = "minus_one"
    by_view = graph.node("Concat", [images, used, cells, width], "by_view", axis=0)
    views = graph.node("Reshape", [placed, by_view], "placed_views")
    views = graph.node("Add", [views, _changes(graph, model, features, images, used)], "views")
    small = graph.node("Slice", [views, zero, one, one], "small")
    small = graph.node("Add", [small, graph.weight("small_view", model.projector.small_view)], "small_marked")
    crops = graph.node("Slice", [views, one, used, one], "crops")
    crops = graph.node("Add", [crops, graph.weight("crop_view", model.projector.crop_view)], "crops_marked")
    # the squares are laid side by side, row by row of cells
    tiles = graph.node("Concat", [images, rows, columns, grid, grid, width], "tiles", axis=0)
    tiled = graph.node(
        "Transpose", [graph.node("Reshape", [crops, tiles], "tiled")], "in_rows", perm=[0, 1, 3, 2, 4, 5]
    )
    tall, wide = graph.node("Mul", [rows, grid], "tall"), graph.node("Mul", [columns, grid], "wide")
    sheet = graph.node("Concat", [images, tall, wide, width], "sheet", axis=0)
    crops = _with_breaks(graph, model, graph.node("Reshape", [tiled, sheet], "crop_sheet"), images, tall, "crop")
    whole = graph.node("Concat", [images, grid, grid, width], "whole", axis=0)
    small = _with_breaks(graph, model, graph.node("Reshape", [small, whole], "small_sheet"), images, grid, "small")
    separator = graph.weight("separator", model.projector.separator.reshape(1, 1, hidden))
    each = graph.node("Concat", [images, one, one], "each", axis=0)
    separators = graph.node("Expand", [separator, each], "separators")
    tokens = graph.node("Concat", [crops, separators, small], "tokens", axis=1)
    graph.node("Reshape", [tokens, graph.node("Concat", [minus, width], "out_shape", axis=0)], "image_features")
    graph.save(
        path,
        [
            helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["images", "views", 3, 336, 336]),
            helper.make_tensor_value_info("image_sizes", TensorProto.INT64, ["images", 2]),
        ],
        [helper.make_tensor_value_info("image_features", TensorProto.FLOAT, ["image_tokens", hidden])],
    )


def _changes(graph: _Graph, model: NanoVision, features: str, images: str, used: str) -> str:
    """What each cell has that it had not in the picture before: [n, squares + 1, 144, hidden]."""
    channels = graph.weight("channels", [model.projector.cell.in_features])
    shape = graph.node("Concat", [images, used, "cells", channels], "features_shape", axis=0)
    here = graph.node("Reshape", [features, shape], "here")
    first = graph.node("Slice", [here, "zero", "one", "zero"], "first_picture")
    earlier = graph.node("Slice", [here, "zero", "minus_one", "zero"], "all_but_last")
    before = graph.node("Concat", [first, earlier], "before", axis=0)
    difference = graph.node("Sub", [here, before], "difference")
    return graph.node("MatMul", [difference, graph.weight("change.weight", model.projector.change.weight.T)], "changes")


def _encoder(graph: _Graph, model: NanoVision, x: str) -> str:
    """Convolutions with their batch norms folded in; [squares, 144, channels]."""
    for at, layer in enumerate(model.encoder.stem):
        x = _conv(graph, layer, x, f"stem.{at}")
    for at, layer in enumerate(model.encoder.body):
        x = graph.node("Add", [x, _conv(graph, layer, x, f"body.{at}")], f"body.{at}.sum")
    channels = model.projector.cell.in_features
    flat = graph.node("Reshape", [x, graph.weight("flat_cells", [-1, channels, CELLS])], "flat_features")
    return graph.node("Transpose", [flat], "features", perm=[0, 2, 1])


def _conv(graph: _Graph, layer: ConvNorm, x: str, name: str) -> str:
    norm, conv = layer.norm, layer.conv
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = graph.weight(f"{name}.weight", conv.weight * gain[:, None, None, None])
    bias = graph.weight(f"{name}.bias", norm.bias - norm.running_mean * gain)
    padding = [int(conv.padding[0])] * 4  # type: ignore[arg-type]
    made = graph.node("Conv", [x, weight, bias], f"{name}.conv", strides=list(conv.stride), pads=padding)
    return graph.node("Relu", [made], f"{name}.relu")


def _with_breaks(graph: _Graph, model: NanoVision, sheet: str, images: str, rows: str, name: str) -> str:
    """A line break behind each row of [n, rows, columns, hidden]; [n, tokens, hidden]."""
    hidden = model.projector.cell.out_features
    line_break = graph.weight(f"{name}.line_break", model.projector.line_break.reshape(1, 1, 1, hidden))
    each = graph.node("Concat", [images, rows, "one", "one"], f"{name}.each", axis=0)
    ends = graph.node("Expand", [line_break, each], f"{name}.ends")
    joined = graph.node("Concat", [sheet, ends], f"{name}.joined", axis=2)
    flat = graph.node("Concat", [images, "minus_one", "hidden"], f"{name}.flat", axis=0)
    return graph.node("Reshape", [joined, flat], f"{name}.tokens")


def embedding_graph(model: NanoVision, path: Path) -> None:
    """input_ids [batch, length], image_features [tokens, hidden] -> inputs_embeds [batch, length, hidden].

    The n-th picture's tokens are −n: they take the features in order, and an embedding of the number is added.
    """
    graph, hidden = _Graph(), model.projector.cell.out_features
    none = graph.weight("none", np.array(0, dtype=np.int64))
    table = graph.weight("embed_tokens", model.model.embed_tokens.weight)
    numbers = model.number_embed_tokens.weight.detach().clone()
    numbers[0] = 0.0  # text
    is_image = graph.node("Less", ["input_ids", none], "is_image")
    plain = graph.node("Max", ["input_ids", none], "plain")
    embedded = graph.node("Gather", [table, plain], "embedded")
    number = graph.node("Max", [graph.node("Neg", ["input_ids"], "negated"), none], "number")
    number = graph.node("Min", [number, graph.weight("most", np.array(MOST_IMAGES, dtype=np.int64))], "known_number")
    # one row of zeros behind the features, so that there is something to gather when there are none
    nothing = graph.weight("nothing", torch.zeros(1, hidden))
    features = graph.node("Concat", ["image_features", nothing], "features", axis=0)
    ones = graph.node("Cast", [is_image], "ones", to=TensorProto.INT64)
    last = graph.weight("axis", np.array(1, dtype=np.int64))
    order = graph.node("CumSum", [ones, last], "order", exclusive=1)
    at = graph.node("Mul", [order, ones], "at")
    taken = graph.node("Gather", [features, at], "taken")
    mark = graph.node("Unsqueeze", [is_image, graph.weight("last", [-1])], "mark")
    merged = graph.node("Where", [mark, taken, embedded], "merged")
    numbered = graph.node("Gather", [graph.weight("numbers", numbers), number], "numbered")
    graph.node("Add", [merged, numbered], "inputs_embeds")
    graph.save(
        path,
        [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"]),
            helper.make_tensor_value_info("image_features", TensorProto.FLOAT, ["image_tokens", hidden]),
        ],
        [helper.make_tensor_value_info("inputs_embeds", TensorProto.FLOAT, ["batch", "length", hidden])],
    )
