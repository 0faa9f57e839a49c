"""The fields of `edged.toml`, the manifest beside a plain ONNX model: what goes in, what is done before and after.

Told for users in docs/plain-models.md. Only shapes and ranges are checked here; plain_manifest.py holds it against the
graph.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_LABELS = 100_000

Side = Annotated[int, Field(ge=1, le=8192)]
TensorName = Annotated[str, Field(min_length=1, max_length=200)]
FileName = Annotated[str, Field(min_length=1, max_length=255)]
Label = Annotated[str, Field(max_length=200)]
Per = Annotated[list[float], Field(min_length=1, max_length=3)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ImageInput(_Part):
    """How an image becomes the tensor `input`: upright RGB → resize → colour → (pixel · scale − mean) / std → layout.

    `fit`: `stretch` to `size`; `crop` the middle after scaling the shorter side; `pad` (letterbox) with `pad_value`.
    """

    input: TensorName | None = None
    size: tuple[Side, Side]
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    resample: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = "bilinear"
    crop_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    pad_value: Annotated[int, Field(ge=0, le=255)] = 0
    colour: Literal["rgb", "bgr", "grey"] = "rgb"
    invert: Literal["never", "always", "if_background_is_light"] = "never"
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1 / 255
    mean: Per = [0.0]
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=3)] = [1.0]
    layout: Literal["nchw", "nhwc"] = "nchw"

    @property
    def channels(self) -> int:
        return 1 if self.colour == "grey" else 3

    @model_validator(mode="after")
    def _one_per_channel(self) -> ImageInput:
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise ValueError(f"{name}: give one number, or {self.channels}, one for each channel")
        return self


class Classify(_Part):
    """Scores of classes: `activation` over the last axis of `output`, then the `top_k` best with their labels."""

    output: TensorName | None = None
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    labels: Annotated[list[Label], Field(max_length=MAX_LABELS)] | None = None
    labels_file: FileName | None = None
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 5
    threshold: Share = 0.0


class Detect(_Part):
    """Boxes with scores, weak ones dropped, then non-maximum suppression for each class.

    Either `boxes` and `scores` are two outputs ([n, boxes, 4] and [n, boxes, classes]; with `classes`, a third output,
    `scores` is [n, boxes] and `classes` the class of each box), or `output` holds both in one row for each box: 4
    numbers, then an `objectness` if it says so, then one score for each class; `rows = "last"` when the boxes are the
    last axis (YOLOv8), else `"first"`.
    """

    output: TensorName | None = None
    boxes: TensorName | None = None
    scores: TensorName | None = None
    classes: TensorName | None = None
    rows: Literal["first", "last"] = "first"
    objectness: bool = False
    box: Literal["xyxy", "yxyx", "xywh", "cxcywh"] = "xyxy"
    unit: Literal["pixels", "share"] = "pixels"
    activation: Literal["sigmoid", "softmax", "none"] = "none"
    labels: Annotated[list[Label], Field(max_length=MAX_LABELS)] | None = None
    labels_file: FileName | None = None
    threshold: Share = 0.25
    iou_threshold: Share = 0.45
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 100

    @model_validator(mode="after")
    def _one_form(self) -> Detect:
        if (self.output is None) == (self.boxes is None or self.scores is None):
            raise ValueError("give either output, or boxes and scores (names of the graph's outputs)")
        return self


class Embed(_Part):
    """Texts to vectors: `pooling` over the tokens of `output` (`none`: the graph does it), `normalize` to length 1."""

    tokenizer: FileName = "tokenizer.json"
    output: TensorName | None = None
    pooling: Literal["mean", "cls", "none"] = "mean"
    normalize: bool = True
    max_tokens: Annotated[int, Field(ge=1, le=65_536)] = 512
    prefix: Annotated[str, Field(max_length=1000)] = ""


class PlainManifest(_Part):
    """The whole file. With `image` and `classify` or `detect` it answers images; with `embed` texts; tensors always.

    Requests that arrive together are run as one batch of at most `max_batch` rows, if the graph's first axis is open.
    Those that bring tensors only with `batch_tensors`, since nothing else says that their first axis is a batch.
    """

    file: FileName = "model.onnx"
    description: Annotated[str, Field(max_length=1000)] = ""
    max_batch: Annotated[int, Field(ge=1, le=1024)] = 16
    batch_tensors: bool = False
    image: ImageInput | None = None
    classify: Classify | None = None
    detect: Detect | None = None
    embed: Embed | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> PlainManifest:
        if self.classify and self.detect:
            raise ValueError("classify and detect exclude each other")
        if (self.classify or self.detect) and not self.image:
            raise ValueError("image: missing; classify and detect say what an image's answer is")
        if self.embed and self.image:
            raise ValueError("embed and image exclude each other")
        return self

    @property
    def task(self) -> str:
        """`classify`, `detect`, `embed` or `tensors`."""
        return next((task for task in ("classify", "detect", "embed") if getattr(self, task)), "tensors")
