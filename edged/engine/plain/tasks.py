"""The three kinds of requests: an image, named tensors, texts. Each knows what goes into the graph and comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.engine.images import ImageLimits, Lean, check_size, decode_lean, read_lean, to_png
from edged.engine.plain.job import Answer, Key, Row
from edged.engine.plain.pixels import Placement, empty_image, to_pixels, to_tensor
from edged.engine.plain.scores import best_classes, found_boxes
from edged.engine.plain.tensors import pack_outputs, read_inputs
from edged.engine.plain.texts import Texts, normalized, pooled
from edged.protocol import engine as wire
from edged.store.plain_fields import Embed, ImageInput
from edged.store.plain_manifest import PlainModel

Array = NDArray[Any]


class ImageTask:
    """One image → labels, boxes, or the model's outputs as they are."""

    def __init__(self, model: PlainModel, limits: ImageLimits) -> None:
        spec = model.manifest.image
        assert spec is not None
        self._spec: ImageInput = spec
        self._model, self._limits = model, limits
        self._tensor = model.input(spec.input)
        side = math.ceil(2 * max(spec.size) / spec.crop_share)  # twice what is wanted: the resize still decides
        self._at_least = (side, side)

    def items(self, start: wire.Start) -> Sequence[Lean]:
        lean = read_lean(start.frames[start.body["image"]])
        check_size(lean, self._limits)
        return [lean]

    def empty(self) -> Lean:
        """A black image, for the warm-up."""
        return read_lean(to_png(empty_image(self._spec)))

    def key(self, item: Lean) -> Key:
        return "image", 0, 0

    def cost_bytes(self, item: Lean) -> int:
        return item.decode_bytes

    def prepare(self, item: Lean, deadline_s: float | None) -> Row:
        keep_grey = self._spec.colour == "grey"
        image = decode_lean(item, self._limits, deadline_s=deadline_s, at_least=self._at_least, keep_grey=keep_grey)
        pixels, placement = to_pixels(image, self._spec)
        turned = item.orientation >= 5
        true_size = (item.height, item.width) if turned else (item.width, item.height)
        return Row(pixels, 1, _of_size(placement, true_size))

    def feeds(self, rows: Sequence[Row], pad_to: int) -> dict[str, Array]:
        tensor = to_tensor([row.value for row in rows], self._spec, self._tensor.dtype)
        return {self._tensor.name: _filled(tensor, pad_to)}

    def part(self, row: Row, outputs: Mapping[str, Array]) -> Any:
        return row.context, {name: array[0] for name, array in outputs.items()}

    def answer(self, start: wire.Start, parts: Sequence[Any]) -> Answer:
        (placement, outputs), body, manifest = parts[0], start.body, self._model.manifest
        fields: dict[str, Any] = {"image": {"width": placement.size[0], "height": placement.size[1]}}
        if manifest.classify:
            scores = outputs[self._model.output(manifest.classify.output).name].astype(np.float32)
            labels = best_classes(scores, manifest.classify, self._model.labels, body["top_k"], body["threshold"])
            return fields | {"labels": labels}, ()
        if manifest.detect:
            floats = {name: array.astype(np.float32) for name, array in outputs.items()}
            boxes = found_boxes(
                floats,
                manifest.detect,
                self._model.labels,
                self._spec.size,
                placement,
                body["top_k"],
                body["threshold"],
            )
            return fields | {"boxes": boxes}, ()
        packed, frames = pack_outputs({name: array[None] for name, array in outputs.items()})
        return fields | {"outputs": packed}, frames


class TensorTask:
    """Named tensors → the model's outputs."""

    def __init__(self, model: PlainModel) -> None:
        self._model = model

    def items(self, start: wire.Start) -> Sequence[dict[str, Array]]:
        return [read_inputs(start.body["inputs"], start.frames, self._model.inputs)]

    def key(self, item: dict[str, Array]) -> Key:
        shapes = tuple((name, array.shape[1:]) for name, array in item.items())
        return "tensors", shapes, 0 if self._model.manifest.batch_tensors else id(item)

    def cost_bytes(self, item: dict[str, Array]) -> int:
        return sum(array.nbytes for array in item.values())

    def prepare(self, item: dict[str, Array], deadline_s: float | None) -> Row:
        rows = {array.shape[0] if array.ndim else 1 for array in item.values()}
        return Row(item, rows.pop() if len(rows) == 1 else 1)

    def feeds(self, rows: Sequence[Row], pad_to: int) -> dict[str, Array]:
        if len(rows) == 1:
            return dict(rows[0].value)
        return {name: np.concatenate([row.value[name] for row in rows]) for name in rows[0].value}

    def part(self, row: Row, outputs: Mapping[str, Array]) -> Any:
        return outputs

    def answer(self, start: wire.Start, parts: Sequence[Any]) -> Answer:
        packed, frames = pack_outputs(parts[0])
        return {"outputs": packed}, frames


class TextTask:
    """Texts → one vector each."""

    def __init__(self, model: PlainModel, texts: Texts) -> None:
        spec = model.manifest.embed
        assert spec is not None
        self._spec: Embed = spec
        self._texts = texts
        self._output = model.output(spec.output).name

    def items(self, start: wire.Start) -> Sequence[Any]:
        given = start.body["input"]
        return [self.encode(text) for text in ([given] if isinstance(given, str) else given)]

    def encode(self, text: str) -> Any:
        """The tokens of a text."""
        return self._texts.encode(text)

    def key(self, item: Any) -> Key:
        return "text", max(16, 1 << (len(item.ids) - 1).bit_length()), 0  # of about one length: padding is wasted work

    def cost_bytes(self, item: Any) -> int:
        return len(item.ids) * 8 * 3

    def prepare(self, item: Any, deadline_s: float | None) -> Row:
        return Row(item, 1, len(item.ids))

    def feeds(self, rows: Sequence[Row], pad_to: int) -> dict[str, Array]:
        made = self._texts.feeds([row.value for row in rows])
        return {name: _filled(array, pad_to) for name, array in made.items()}

    def part(self, row: Row, outputs: Mapping[str, Array]) -> Any:
        return row.context, pooled(outputs[self._output], row.context, self._spec.pooling)

    def answer(self, start: wire.Start, parts: Sequence[Any]) -> Answer:
        wanted = start.body["normalize"]
        vectors = np.concatenate([vector for _, vector in parts])
        if self._spec.normalize if wanted is None else wanted:
            vectors = normalized(vectors)
        fields = {
            "dtype": "float32",
            "shape": list(vectors.shape),
            "frame": 0,
            "tokens": sum(length for length, _ in parts),
        }
        return fields, (np.ascontiguousarray(vectors, np.float32).tobytes(),)


def _filled(array: Array, rows: int) -> Array:
    """With rows of zeros at its end, for a graph whose first axis is fixed."""
    if len(array) >= rows:
        return array
    return np.concatenate([array, np.zeros((rows - len(array), *array.shape[1:]), array.dtype)])


def _of_size(placement: Placement, size: tuple[int, int]) -> Placement:
    """The same placement for the image before it was decoded smaller."""
    across, down = placement.size[0] / size[0], placement.size[1] / size[1]
    return Placement(size, placement.across * across, placement.down * down, placement.left, placement.top)
