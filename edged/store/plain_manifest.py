"""A plain ONNX model's folder, checked: `edged.toml` against its own rules and against the graph; loads no weights.

The graph's inputs and outputs are read too, so that a manifest that does not fit its graph is refused before anything
native opens it.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edged.errors import ModelError
from edged.store.external import data_files
from edged.store.folder import file_size, list_files, unreadable
from edged.store.graph import TensorInfo, read_graph
from edged.store.plain_fields import MAX_LABELS, PlainManifest

MANIFEST_FILE = "edged.toml"
MAX_MANIFEST_BYTES = 256 * 1024
MAX_LABELS_BYTES = 4 * 1024 * 1024
IMAGE_DTYPES = ("float32", "float16", "uint8")


@dataclass(frozen=True, slots=True)
class PlainModel:
    """A plain model's folder, checked. `labels` are those of its classes, () when it has none."""

    folder: Path
    manifest: PlainManifest
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    labels: tuple[str, ...]
    weights_bytes: int
    packed_bytes: int = 0
    kv_bytes_per_token: int = 0

    @property
    def kind(self) -> str:
        """As people are told it: `onnx classify` ..."""
        return f"onnx {self.manifest.task}"

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of its folder. Raises ModelError."""
        return list_files(self.folder)

    def input(self, name: str | None) -> TensorInfo:
        """The graph's input of that name; None is the only one, or the first."""
        return next(tensor for tensor in self.inputs if name in (None, tensor.name))

    def output(self, name: str | None) -> TensorInfo:
        """The graph's output of that name; None is the first."""
        return next(tensor for tensor in self.outputs if name in (None, tensor.name))


def is_plain(folder: Path) -> bool:
    """Whether the folder holds a plain model (and no genai one)."""
    return (folder / MANIFEST_FILE).is_file() and not (folder / "genai_config.json").exists()


def read_plain(folder: Path) -> PlainModel:
    """Checks the whole folder and describes it. Raises ModelError: which file, which field, what is wrong."""
    manifest = _read(folder)
    weights_bytes = file_size(folder, manifest.file, MANIFEST_FILE)
    graph = read_graph(folder, manifest.file)
    if not graph.outputs:
        raise ModelError(folder, manifest.file, "has no outputs; this is no model")
    weights_bytes += sum(file_size(folder, name, manifest.file) for name in data_files(folder, manifest.file, graph))
    model = PlainModel(folder, manifest, graph.inputs, graph.outputs, _labels(folder, manifest), weights_bytes)
    _check_names(model)
    _check_image(model)
    if manifest.embed:
        file_size(folder, manifest.embed.tokenizer, MANIFEST_FILE)
    return model


def _read(folder: Path) -> PlainManifest:
    try:
        with (folder / MANIFEST_FILE).open("rb") as opened:
            data = opened.read(MAX_MANIFEST_BYTES + 1)
    except OSError as error:
        raise unreadable(folder, MANIFEST_FILE, error) from error
    if len(data) > MAX_MANIFEST_BYTES:
        raise ModelError(folder, MANIFEST_FILE, f"is longer than the {MAX_MANIFEST_BYTES} bytes that are read")
    try:
        raw = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ModelError(folder, MANIFEST_FILE, f"is not valid TOML: {error}") from error
    try:
        return PlainManifest.model_validate(raw)
    except ValidationError as error:
        raise ModelError(folder, MANIFEST_FILE, _explain(error)) from error


def _explain(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        what = "no such field; docs/plain-models.md lists them"
    return f"{where}: {what}" if where else what


def _labels(folder: Path, manifest: PlainManifest) -> tuple[str, ...]:
    part = manifest.classify or manifest.detect
    if part is None:
        return ()
    if part.labels_file is None:
        return tuple(part.labels or ())
    if part.labels is not None:
        raise ModelError(folder, MANIFEST_FILE, "labels and labels_file exclude each other")
    if file_size(folder, part.labels_file, MANIFEST_FILE) > MAX_LABELS_BYTES:
        raise ModelError(folder, part.labels_file, f"is longer than the {MAX_LABELS_BYTES} bytes that are read")
    try:
        lines = (folder / part.labels_file).read_text("utf-8").splitlines()
    except OSError as error:
        raise unreadable(folder, part.labels_file, error) from error
    except UnicodeDecodeError as error:
        raise ModelError(folder, part.labels_file, "is not UTF-8 text") from error
    return tuple(line.strip()[:200] for line in lines[:MAX_LABELS])


def _check_names(model: PlainModel) -> None:
    manifest = model.manifest
    named: list[tuple[str, str | None, tuple[TensorInfo, ...]]] = []
    if manifest.image:
        named.append(("image.input", manifest.image.input, model.inputs))
    for task in ("classify", "detect", "embed"):
        part = getattr(manifest, task)
        for field in ("output", "boxes", "scores", "classes"):
            if part is not None and getattr(part, field, None) is not None:
                named.append((f"{task}.{field}", getattr(part, field), model.outputs))
    for where, name, tensors in named:
        if name is not None and name not in {tensor.name for tensor in tensors}:
            known = ", ".join(tensor.name[:60] for tensor in tensors[:20])
            raise ModelError(
                model.folder, MANIFEST_FILE, f"{where}: the graph has no {name[:60]!r}; it has: {known or 'none'}"
            )


def _check_image(model: PlainModel) -> None:
    image = model.manifest.image
    if image is None:
        return
    if len(model.inputs) != 1 and image.input is None:
        raise ModelError(
            model.folder, MANIFEST_FILE, f"image.input: the graph has {len(model.inputs)} inputs; name the image's"
        )
    others = [tensor.name for tensor in model.inputs if tensor.name != model.input(image.input).name]
    if others:
        raise ModelError(
            model.folder, MANIFEST_FILE, f"image: the graph also wants {others[0][:60]!r}; it takes tensors only"
        )
    tensor = model.input(image.input)
    width, height = image.size
    wanted = (image.channels, height, width) if image.layout == "nchw" else (height, width, image.channels)
    has = tensor.dims[1:]
    fits = len(has) == 3 and all(dim == want for dim, want in zip(has, wanted, strict=True) if isinstance(dim, int))
    if not fits or tensor.dtype not in IMAGE_DTYPES:
        shape = ", ".join(str(dim) or "?" for dim in tensor.dims)
        raise ModelError(
            model.folder,
            MANIFEST_FILE,
            f"image: makes [n, {', '.join(map(str, wanted))}] of a float or uint8 type, but the graph's "
            f"{tensor.name[:60]!r} is {tensor.dtype} [{shape}]",
        )
