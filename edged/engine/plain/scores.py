"""What a model's numbers mean: the best classes of a row of scores, the boxes of a detector. Arrays in, maps out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.engine.plain.pixels import Placement
from edged.store.plain_fields import Classify, Detect

Floats = NDArray[Any]
MOST_CANDIDATES = 2000  # boxes above the threshold that take part in the suppression, the best ones


def activated(values: Floats, activation: str) -> Floats:
    """Softmax over the last axis, sigmoid, or the values as they are; without overflow."""
    result: Floats = values
    if activation == "softmax":
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        result = powers / powers.sum(axis=-1, keepdims=True)
    if activation == "sigmoid":
        result = 0.5 * (1 + np.tanh(0.5 * values))
    return result


def best_classes(
    row: Floats, spec: Classify, labels: tuple[str, ...], top_k: int | None, threshold: float | None
) -> list[dict[str, Any]]:
    """The best classes of one row of scores, best first; those below the threshold are left out."""
    scores = activated(row.reshape(-1), spec.activation)
    least = spec.threshold if threshold is None else threshold
    order = np.argsort(-scores, kind="stable")[: top_k or spec.top_k]
    best = order[scores[order] >= least]
    return [
        {"label": _label(labels, index), "index": index, "score": _rounded(score)}
        for index, score in zip(best.tolist(), scores[best].tolist(), strict=True)
    ]


def found_boxes(
    row: dict[str, Floats],
    spec: Detect,
    labels: tuple[str, ...],
    size: tuple[int, int],
    placement: Placement,
    top_k: int | None,
    threshold: float | None,
) -> list[dict[str, Any]]:
    """The objects in one image, best first. `row` holds the outputs without their batch axis; `size` (width, height)
    is the model's image. Boxes come out as x0, y0, x1, y1 in pixels of the upright image."""
    boxes, scores, classes = _split(row, spec)
    keep = np.flatnonzero(scores >= (spec.threshold if threshold is None else threshold))
    keep = keep[np.argsort(-scores[keep], kind="stable")][:MOST_CANDIDATES]
    corners = _corners(boxes[keep], spec, size)
    kept = suppressed(corners, classes[keep], spec.iou_threshold)[: top_k or spec.top_k]
    placed = placement.to_image(corners[kept])
    return [
        {
            "label": _label(labels, int(classes[keep[number]])),
            "index": int(classes[keep[number]]),
            "score": _rounded(scores[keep[number]]),
            "box": [round(float(edge), 2) for edge in box],
        }
        for number, box in zip(kept, placed, strict=True)
    ]


def suppressed(corners: Floats, classes: NDArray[np.int64], iou_threshold: float) -> list[int]:
    """Non-maximum suppression: indices of the boxes that stay, of boxes sorted best first. A box goes when a better one
    of its class overlaps it with an intersection over union above the threshold."""
    left = np.arange(len(corners))
    areas = np.prod(np.maximum(corners[:, 2:] - corners[:, :2], 0), axis=1)
    kept: list[int] = []
    while len(left):
        best, rest = left[0], left[1:]
        kept.append(int(best))
        inner = np.minimum(corners[rest, 2:], corners[best, 2:]) - np.maximum(corners[rest, :2], corners[best, :2])
        shared = np.prod(np.maximum(inner, 0), axis=1)
        union = areas[rest] + areas[best] - shared
        apart = (shared <= iou_threshold * union) | (classes[rest] != classes[best])
        left = rest[apart]
    return kept


def _split(row: dict[str, Floats], spec: Detect) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Boxes [n, 4], the score of each, the class of each."""
    if spec.output is None:
        assert spec.boxes is not None
        assert spec.scores is not None
        boxes, given = row[spec.boxes].reshape(-1, 4), activated(row[spec.scores], spec.activation)
        if spec.classes is not None:
            return boxes, given.reshape(-1), row[spec.classes].reshape(-1).astype(np.int64)
        given = given.reshape(len(boxes), -1)
    else:
        table = row[spec.output] if spec.rows == "first" else row[spec.output].T
        boxes, rest = table[:, :4], activated(table[:, 4:], spec.activation)
        given = rest[:, 1:] * rest[:, :1] if spec.objectness else rest
    classes = given.argmax(axis=1) if given.shape[1] else np.zeros(len(given), np.int64)
    return boxes, given.max(axis=1, initial=0), classes


def _corners(boxes: Floats, spec: Detect, size: tuple[int, int]) -> Floats:
    """As x0, y0, x1, y1 in model pixels."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if spec.box == "yxyx":
        first, second = first[:, ::-1], second[:, ::-1]
    elif spec.box == "xywh":
        second = first + second
    elif spec.box == "cxcywh":
        first, second = first - second / 2, first + second / 2
    corners = np.concatenate([first, second], axis=1)
    return corners * np.array([*size, *size], np.float32) if spec.unit == "share" else corners


def _label(labels: tuple[str, ...], index: int) -> str:
    return labels[index] if index < len(labels) else str(index)


def _rounded(score: Any) -> float:
    return round(float(score), 6)
