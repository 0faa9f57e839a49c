"""Plain models from a program: what is asked with `infer` and `embed`, and what comes back. No sockets here.

Tensors are raw bytes with their dtype and shape, so that the client needs no numpy; with it,
`numpy.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)`.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from edged.client.errors import BadReply, UsageError
from edged.client.exchange import ATTACHMENTS
from edged.client.replies import made_from
from edged.client.requests import request


class InferOptions(TypedDict, total=False):
    """What `infer` takes beside its input; what is left out is as the model's manifest says."""

    model: str
    top_k: int
    threshold: float
    deadline_ms: int


class EmbedOptions(TypedDict, total=False):
    """What `embed` takes beside its texts."""

    model: str
    normalize: bool
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """Elements in row-major order, little-endian; `dtype` in numpy's words (`float32`, `int64` ...)."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Label:
    """A class of the model, and how sure it is."""

    label: str = ""
    index: int = 0
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Box:
    """An object found; `box` is x0, y0, x1, y1 in pixels of the upright image."""

    label: str = ""
    index: int = 0
    score: float = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Inference:
    """The answer of `infer`: `labels` or `boxes`, best first, or `outputs` by name; what the model gives.

    `image` holds the upright image's width and height; `timings` milliseconds; `batch` how many rows ran together.
    """

    labels: tuple[Label, ...] = ()
    boxes: tuple[Box, ...] = ()
    outputs: dict[str, Tensor] = field(default_factory=dict)
    image: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Embedding:
    """The answer of `embed`: float32, one row a text; `tokens` of all texts together."""

    shape: tuple[int, int]
    data: bytes = field(repr=False)
    tokens: int = 0
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def vectors(self) -> list[list[float]]:
        """As numbers, one list a text."""
        numbers = array("f")
        numbers.frombytes(self.data)
        count, width = self.shape
        return [list(numbers[row * width : (row + 1) * width]) for row in range(count)]


def infer_request(
    image: bytes | None, inputs: Mapping[str, Tensor] | None, options: Mapping[str, Any]
) -> tuple[dict[str, Any], list[bytes]]:
    """The request map and its attachments. Raises UsageError unless there is exactly one kind of input."""
    if (image is None) == (inputs is None):
        raise UsageError("give either image (the bytes of a PNG, JPEG or WebP file) or inputs (named tensors)")
    if image is not None:
        return request("infer", {"image": 0, **options}), [image]
    assert inputs is not None
    given = {
        name: {"dtype": tensor.dtype, "shape": list(tensor.shape), "frame": number}
        for number, (name, tensor) in enumerate(inputs.items())
    }
    return request("infer", {"inputs": given, **options}), [tensor.data for tensor in inputs.values()]


def inference_of(reply: Mapping[str, Any]) -> Inference:
    """An `infer` result. Raises BadReply when it cannot be one."""
    try:
        frames = reply[ATTACHMENTS]
        return Inference(
            labels=tuple(made_from(Label, each) for each in reply.get("labels", ())),
            boxes=tuple(made_from(Box, each) for each in reply.get("boxes", ())),
            outputs={
                name: Tensor(each["dtype"], tuple(each["shape"]), frames[each["frame"]])
                for name, each in reply.get("outputs", {}).items()
            },
            image=dict(reply.get("image", {})),
            timings=dict(reply.get("timings", {})),
            batch=int(reply.get("batch", 0)),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BadReply("the reply is no answer of infer: is this an edged daemon?") from error


def embed_request(texts: str | Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """The request map."""
    return request("embed", {"input": texts if isinstance(texts, str) else list(texts), **options})


def embedding_of(reply: Mapping[str, Any]) -> Embedding:
    """An `embed` result. Raises BadReply when it cannot be one."""
    try:
        count, width = reply["shape"]
        data = reply[ATTACHMENTS][reply["frame"]]
        if len(data) != count * width * 4:
            raise ValueError("the frame has another size than its shape says")
        return Embedding((count, width), data, int(reply.get("tokens", 0)), dict(reply.get("timings", {})))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadReply("the reply is no answer of embed: is this an edged daemon?") from error
