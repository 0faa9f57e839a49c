"""Writes a trained model as the three graphs of Phi-3-vision and their configuration, as onnxruntime-genai loads them.

The decoder goes through onnxruntime-genai's own builder; encoder and embedding are small and written node by node.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from nano.export import check_same, cleared_aside, phi3, run_builder, take_place
from nano.tokenizer import save_tokenizer
from nano_vision.model import (
    CELLS,
    DIGITS,
    GRID,
    MIDDLE,
    MOST_IMAGES,
    PLACES,
    THINGS,
    ConvNorm,
    Lists,
    Look,
    NanoVision,
)

if TYPE_CHECKING:
    from nano_vision.training import Run

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

    def cut(self, x: str, start: str, end: str, axis: str, name: str) -> str:
        """x[start:end] along an axis; all three are names of weights."""
        return self.node("Slice", [x, start, end, axis], name)

    def save(self, path: Path, inputs: list[Any], outputs: list[Any]) -> None:
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model)
        onnx.save(model, str(path))


def export(run: Run, out: Path, precision: str) -> None:
    """Write the whole model folder; README.md and golden.json of an older one are kept."""
    run.model.eval()
    aside = cleared_aside(out)
    with tempfile.TemporaryDirectory() as scratch:
        _decoder(run, Path(scratch), aside, precision)
    vision_graph(run.model, aside / "vision.onnx")
    embedding_graph(run.model, aside / "embedding.onnx")
    save_tokenizer(run.tokenizer, aside)
    (aside / "processor_config.json").write_text(json.dumps(PROCESSOR, indent=2) + "\n", encoding="utf-8")
    _finish_config(aside / "genai_config.json")
    take_place(aside, out)


def _decoder(run: Run, scratch: Path, out: Path, precision: str) -> None:
    state = {name: value for name, value in run.model.state_dict().items() if name.startswith(("model.", "lm_head."))}
    theirs = phi3(run.tokenizer, run.shape, state)
    run.model.quantise(False)
    x = run.model.model.embed_tokens(torch.arange(3, 60)[None])
    mask = torch.ones(1, 1, 57, 57, dtype=torch.bool).tril()
    with torch.no_grad():
        ours = run.model.lm_head(run.model.model(x, torch.arange(57)[None], mask))
        check_same(theirs(inputs_embeds=x).logits, ours)
    theirs.save_pretrained(scratch)
    save_tokenizer(run.tokenizer, scratch)
    run_builder(scratch, out, precision, "exclude_embeds=true")


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
    graph, projector = _Graph(), model.projector
    hidden = projector.cell.here.out_features
    for name, number in {"zero": 0, "one": 1, "two": 2, "minus_one": -1, "grid": GRID}.items():
        graph.weight(name, [number])
    graph.weight("hidden", [hidden])
    graph.weight("channels", [projector.cell.here.in_features])
    size = graph.node("Reshape", [graph.cut("image_sizes", "zero", "one", "zero", "first_size"), "minus_one"], "size")
    squares = graph.node("Div", [size, graph.weight("side", [336])], "squares")
    rows = graph.cut(squares, "zero", "one", "zero", "rows")
    columns = graph.cut(squares, "one", "two", "zero", "columns")
    graph.node("Add", [graph.node("Mul", [rows, columns], "count"), "one"], "used")
    graph.cut(graph.node("Shape", ["pixel_values"], "pixels_shape"), "zero", "one", "zero", "images")
    pixels = graph.cut("pixel_values", "zero", "used", "one", "pixels")
    flat = graph.node("Reshape", [pixels, graph.weight("flat_pixels", [-1, 3, 336, 336])], "flat")
    features = _features(graph, model, flat)
    views = {name: _look(graph, getattr(projector, name), features[name], name) for name in ("cell", "ninth", "whole")}
    # the small view: 12 rows of cells, each ended by an entry of a list
    whole = graph.node("Concat", ["images", "grid", "grid", "hidden"], "whole_sheet", axis=0)
    small = graph.cut(views["cell"], "zero", "one", "one", "small")
    small = graph.node("Add", [small, graph.weight("small_view", projector.small_view)], "small_marked")
    small = graph.node("Reshape", [small, whole], "small_sheet")
    ends = graph.cut(_lists(graph, model, features), "zero", "one", "one", "small_ends")
    ends_shape = graph.node("Concat", ["images", "grid", "one", "hidden"], "small_ends_shape", axis=0)
    small = _ended(graph, small, graph.node("Reshape", [ends, ends_shape], "small_ends_column"), "small")
    # the squares are laid side by side, row by row of cells, each ended by a ninth, or the whole, of its row's first
    crops = graph.cut(views["cell"], "one", "used", "one", "crops")
    crops = graph.node("Add", [crops, graph.weight("crop_view", projector.crop_view)], "crops_marked")
    tiles = graph.node("Concat", ["images", rows, columns, "grid", "grid", "hidden"], "tiles", axis=0)
    tiled = graph.node(
        "Transpose", [graph.node("Reshape", [crops, tiles], "tiled")], "in_rows", perm=[0, 1, 3, 2, 4, 5]
    )
    tall, wide = graph.node("Mul", [rows, "grid"], "tall"), graph.node("Mul", [columns, "grid"], "wide")
    sheet = graph.node("Concat", ["images", tall, wide, "hidden"], "sheet", axis=0)
    ends = graph.node("Concat", [views["ninth"], views["whole"]], "ninths_and_whole", axis=2)
    ends = graph.cut(ends, "one", "used", "one", "crop_ends")
    by_square = graph.node("Concat", ["images", rows, columns, "grid", "hidden"], "ends_by_square", axis=0)
    ends = graph.node("Reshape", [ends, by_square], "crop_ends_by_square")
    ends = graph.cut(ends, "zero", "one", "two", "crop_ends_first")
    ends_shape = graph.node("Concat", ["images", tall, "one", "hidden"], "crop_ends_shape", axis=0)
    ends = graph.node("Reshape", [ends, ends_shape], "crop_ends_column")
    crops = _ended(graph, graph.node("Reshape", [tiled, sheet], "crop_sheet"), ends, "crop")
    separator = graph.weight("separator", projector.separator.reshape(1, 1, hidden))
    each = graph.node("Concat", ["images", "one", "one"], "each", axis=0)
    separators = graph.node("Expand", [separator, each], "separators")
    tokens = graph.node("Concat", [crops, separators, small], "tokens", axis=1)
    graph.node(
        "Reshape", [tokens, graph.node("Concat", ["minus_one", "hidden"], "out_shape", axis=0)], "image_features"
    )
    graph.save(
        path,
        [
            helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["images", "views", 3, 336, 336]),
            helper.make_tensor_value_info("image_sizes", TensorProto.INT64, ["images", 2]),
        ],
        [helper.make_tensor_value_info("image_features", TensorProto.FLOAT, ["image_tokens", hidden])],
    )


def _features(graph: _Graph, model: NanoVision, x: str) -> dict[str, str]:
    """The encoder with its batch norms folded in; features [squares, n, channels] by the names of the projector."""
    for at, layer in enumerate(model.encoder.stem):
        x = _conv(graph, layer, x, f"stem.{at}")
    for at, layer in enumerate(model.encoder.body):
        x = graph.node("Add", [x, _conv(graph, layer, x, f"body.{at}")], f"body.{at}.sum")
    for at, block in enumerate(model.encoder.context):
        around = _folded(graph, block.around, block.norm, x, f"context.{at}.around")
        assert block.mix.bias is not None
        weights = [graph.weight(f"context.{at}.mix.{name}", value) for name, value in block.mix.named_parameters()]
        mixed = graph.node("Conv", [around, *weights], f"context.{at}.mix")
        x = graph.node("Add", [x, mixed], f"context.{at}.sum")
    step = GRID // 3
    ninths = graph.node("MaxPool", [x], "ninths", kernel_shape=[step, step], strides=[step, step])
    first, last = graph.weight("middle_first", [MIDDLE.start]), graph.weight("middle_last", [MIDDLE.stop])
    columns = graph.node("ReduceMax", [graph.cut(x, first, last, "two", "middle")], "columns_max", axes=[2], keepdims=0)
    whole = graph.node("ReduceMax", [x], "whole_max", axes=[2, 3], keepdims=1)
    flat = {"cell": (x, CELLS), "ninth": (ninths, PLACES), "column": (columns, GRID), "whole": (whole, 1)}
    found = {}
    for name, (value, count) in flat.items():
        shape = graph.node("Concat", ["minus_one", "channels", graph.weight(f"{name}.count", [count])],
                           f"{name}.flat_shape", axis=0)  # fmt: skip
        made = graph.node("Reshape", [value, shape], f"{name}.flat")
        found[name] = graph.node("Transpose", [made], f"{name}.features", perm=[0, 2, 1])
    return found


def _look(graph: _Graph, look: Look, features: str, name: str) -> str:
    """[images, squares + 1, places, hidden]: what is there, what was not in the picture before, where it is."""
    shape = graph.node("Concat", ["images", "used", f"{name}.count", "channels"], f"{name}.by_view", axis=0)
    here = graph.node("Reshape", [features, shape], f"{name}.here")
    first = graph.cut(here, "zero", "one", "zero", f"{name}.first")
    earlier = graph.cut(here, "zero", "minus_one", "zero", f"{name}.earlier")
    before = graph.node("Concat", [first, earlier], f"{name}.before", axis=0)
    difference = graph.node("Sub", [here, before], f"{name}.difference")
    mapped = graph.node("MatMul", [here, graph.weight(f"{name}.weight", look.here.weight.T)], f"{name}.mapped")
    changed = graph.node(
        "MatMul", [difference, graph.weight(f"{name}.change", look.change.weight.T)], f"{name}.changed"
    )
    place = graph.weight(f"{name}.place", look.place + look.here.bias)
    return graph.node("Add", [graph.node("Add", [mapped, changed], f"{name}.sum"), place], f"{name}.looked")


def _lists(graph: _Graph, model: NanoVision, features: dict[str, str]) -> str:
    """See model.Lists: [images, squares + 1, 12, hidden]."""
    lists, place = model.projector.lists, graph.weight("places.called", model.projector.ninth.place)
    views = {}
    for name in ("ninth", "column"):
        shape = graph.node("Concat", ["images", "used", f"{name}.count", "channels"], f"{name}.views_shape", axis=0)
        views[name] = graph.node("Reshape", [features[name], shape], f"{name}.views")
    none = graph.weight("nothing_there", np.array(0, dtype=np.int64))
    logits = {
        name: _mapped(
            graph, model.seen[name], views["column" if name.startswith("column") else "ninth"], f"seen.{name}"
        )
        for name in ("place_shape", "place_colour", "column_digit", "column_order")
    }
    verdicts = {name: graph.node("ArgMax", [value], name, axis=3, keepdims=0) for name, value in logits.items()}
    sure = {
        name: graph.node("Softmax", [logits[name]], f"{name}.sure", axis=3)
        for name in ("place_shape", "place_colour", "column_digit")
    }
    before = {name: _before(graph, value, name) for name, value in verdicts.items()}
    shape, shape_before = verdicts["place_shape"], before["place_shape"]
    there = graph.node("Not", [graph.node("Equal", [shape, none], "empty")], "there")
    was_there = graph.node("Not", [graph.node("Equal", [shape_before, none], "was_empty")], "was_there")
    order = graph.node("Unsqueeze", [verdicts["column_order"], "two"], "order")
    marks = graph.weight("digit_numbers", np.arange(1, DIGITS + 1, dtype=np.int64).reshape(1, 1, DIGITS, 1))
    is_digit = graph.node(
        "Cast", [graph.node("Equal", [order, marks], "is_digit")], "digit_marks", to=TensorProto.FLOAT
    )
    total = graph.node("ReduceSum", [is_digit, graph.weight("last_axis", [3])], "digit_columns", keepdims=1)
    total = graph.node("Max", [total, graph.weight("at_least_one", np.array(1, dtype=np.float32))], "digit_divisor")
    shares = graph.node("Div", [is_digit, total], "digit_shares")
    digits = graph.node("MatMul", [shares, views["column"]], "digits")
    digit_names = graph.node("MatMul", [shares, sure["column_digit"]], "digit_names")
    same_shape = graph.node("Equal", [shape, shape_before], "same_shape")
    same_colour = graph.node("Equal", [verdicts["place_colour"], before["place_colour"]], "same_colour")
    both = graph.node("And", [there, was_there], "both_there")
    recoloured = graph.node("And", [both, graph.node("Not", [same_colour], "other_colour")], "recoloured")
    changed = graph.node("Or", [graph.node("Not", [same_shape], "other_shape"), recoloured], "changed")
    now = (views["ninth"], sure["place_shape"], sure["place_colour"])
    earlier = tuple(_before(graph, values, f"now.{at}") for at, values in enumerate(now))
    digit_parts = [
        _mapped(graph, lists.digit, digits, "list.digit"),
        _mapped(graph, lists.digit_before, _before(graph, digits, "digits"), "list.digit_before"),
        _mapped(graph, lists.mark, digit_names, "list.mark"),
        _mapped(graph, lists.mark_before, _before(graph, digit_names, "digit_names"), "list.mark_before"),
    ]
    new = graph.node("And", [there, changed], "new_there")
    old = graph.node("And", [was_there, changed], "old_there")
    parts = [
        _called(graph, lists, _choose(graph, there, THINGS, "things"), now, place, "things"),
        graph.node("Sum", digit_parts, "digit_entries"),
        _called(graph, lists, _choose(graph, new, 1, "new"), now, place, "new"),
        _called(graph, lists, _choose(graph, old, 1, "old"), earlier, place, "old"),
    ]
    last = graph.node("Sub", [graph.cut(parts[0], "zero", "one", "two", "one_entry"),
                              graph.cut(parts[0], "zero", "one", "two", "one_entry_again")], "no_entry")  # fmt: skip
    joined = graph.node("Concat", [*parts, last], "entries", axis=2)
    return graph.node("Add", [joined, graph.weight("list.entry", lists.entry)], "lists")


def _called(graph: _Graph, lists: Lists, chosen: str, values: tuple[str, ...], place: str, name: str) -> str:
    """The entries of chosen ninths: what is there, and where that is."""
    parts = [graph.node("MatMul", [chosen, place], f"{name}.places")]
    for at, (layer, value) in enumerate(zip((lists.thing, lists.shape, lists.colour), values, strict=True)):
        parts.append(_mapped(graph, layer, graph.node("MatMul", [chosen, value], f"{name}.{at}"), f"list.{name}.{at}"))
    return graph.node("Sum", parts, f"{name}.entries")


def _mapped(graph: _Graph, layer: nn.Linear, x: str, name: str) -> str:
    made = graph.node("MatMul", [x, graph.weight(f"{name}.weight", layer.weight.T)], f"{name}.product")
    if layer.bias is None:
        return made
    return graph.node("Add", [made, graph.weight(f"{name}.bias", layer.bias)], f"{name}.out")


def _before(graph: _Graph, values: str, name: str) -> str:
    """The same of the picture before; the first is its own."""
    first = graph.cut(values, "zero", "one", "zero", f"before.{name}.first")
    earlier = graph.cut(values, "zero", "minus_one", "zero", f"before.{name}.earlier")
    return graph.node("Concat", [first, earlier], f"before.{name}", axis=0)


def _choose(graph: _Graph, there: str, count: int, name: str) -> str:
    """[images, squares + 1, n] -> [images, squares + 1, count, n]: the k-th row marks the k-th that is there."""
    ones = graph.node("Cast", [there], f"{name}.ones", to=TensorProto.INT64)
    axis = graph.weight(f"{name}.axis", np.array(2, dtype=np.int64))
    number = graph.node("Mul", [graph.node("CumSum", [ones, axis], f"{name}.sum"), ones], f"{name}.number")
    wanted = graph.weight(f"{name}.wanted", np.arange(1, count + 1, dtype=np.int64).reshape(1, 1, count, 1))
    marks = graph.node("Equal", [graph.node("Unsqueeze", [number, "two"], f"{name}.rows"), wanted], f"{name}.marks")
    return graph.node("Cast", [marks], name, to=TensorProto.FLOAT)


def _conv(graph: _Graph, layer: ConvNorm, x: str, name: str) -> str:
    return _folded(graph, layer.conv, layer.norm, x, name)


def _folded(graph: _Graph, conv: nn.Conv2d, norm: nn.BatchNorm2d, x: str, name: str) -> str:
    """Convolution, batch norm and ReLU as convolution and ReLU."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = graph.weight(f"{name}.weight", conv.weight * gain[:, None, None, None])
    bias = graph.weight(f"{name}.bias", norm.bias - norm.running_mean * gain)
    padding = [int(conv.padding[0])] * 4  # type: ignore[arg-type]
    made = graph.node(
        "Conv", [x, weight, bias], f"{name}.conv", strides=list(conv.stride), pads=padding, group=conv.groups
    )
    return graph.node("Relu", [made], f"{name}.relu")


def _ended(graph: _Graph, sheet: str, ends: str, name: str) -> str:
    """[n, rows, columns, hidden] and an end for each row [n, rows, 1, hidden] -> [n, tokens, hidden]."""
    joined = graph.node("Concat", [sheet, ends], f"{name}.joined", axis=2)
    flat = graph.node("Concat", ["images", "minus_one", "hidden"], f"{name}.flat", axis=0)
    return graph.node("Reshape", [joined, flat], f"{name}.tokens")


def embedding_graph(model: NanoVision, path: Path) -> None:
    """input_ids [batch, length], image_features [tokens, hidden] -> inputs_embeds [batch, length, hidden].

    The n-th picture's tokens are −n: they take the features in order, and an embedding of the number is added.
    """
    graph, hidden = _Graph(), model.projector.cell.here.out_features
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
