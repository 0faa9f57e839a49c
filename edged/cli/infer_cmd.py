"""`edged infer`: an image or tensors through a plain ONNX model."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from edged.cli.options import Endpoint, Json
from edged.cli.printable import printable
from edged.client.plain import Inference, InferOptions, Tensor

MOST_SHOWN = 8

Model = Annotated[str, typer.Argument(help="Name of the model, such as `digits`.")]
TopK = Annotated[int | None, typer.Option(min=1, max=10_000, help="So many answers at most.")]
Threshold = Annotated[float | None, typer.Option(min=0, max=1, help="Leave out answers that are less sure.")]
Timeout = Annotated[float | None, typer.Option(min=0.001, max=86_400, help="Seconds one answer may take.")]


def infer(
    model: Model,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", "-i", help="A PNG, JPEG or WebP file; may come several times.", dir_okay=False),
    ] = None,
    tensor: Annotated[
        list[str] | None, typer.Option("--input", metavar="NAME=FILE.npy", help="A named tensor, one for each input.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for the output tensors, as NAME.npy.", file_okay=False)
    ] = None,
    top_k: TopK = None,
    threshold: Threshold = None,
    timeout: Timeout = None,
    endpoint: Endpoint = None,
    json: Json = False,
) -> None:
    """Run a plain ONNX model: images become labels or boxes, tensors become tensors.

    If no daemon runs, a private one is started for this command.
    """
    if bool(image) == bool(tensor):
        raise typer.BadParameter("give --image (one or more) or --input (one for each input of the model)")
    from edged.cli.private_daemon import daemon_or_private
    from edged.client import Client

    options = infer_options(top_k, threshold, timeout)
    inputs = _read_tensors(tensor or [])
    pictures = [(path, _read(path)) for path in image or ()]
    with daemon_or_private(endpoint, model) as (found, private), Client(found) as client:
        if not private:
            options["model"] = model
        for path, data in pictures:
            _show(client.infer(data, **options), path.name if len(pictures) > 1 else "", out, json=json)
        if inputs:
            _show(client.infer(inputs=inputs, **options), "", out, json=json)


def infer_options(top_k: int | None, threshold: float | None, timeout: float | None) -> InferOptions:
    """The options that were given."""
    options: InferOptions = {}
    if top_k is not None:
        options["top_k"] = top_k
    if threshold is not None:
        options["threshold"] = threshold
    if timeout is not None:
        options["deadline_ms"] = max(1, round(timeout * 1000))
    return options


def as_map(answer: Inference) -> dict[str, Any]:
    """For JSON: what there is, tensors as lists."""
    found: dict[str, Any] = {"image": answer.image} if answer.image else {}
    if answer.labels or not (answer.boxes or answer.outputs):
        found["labels"] = [asdict(label) for label in answer.labels]
    if answer.boxes:
        found["boxes"] = [asdict(box) for box in answer.boxes]
    if answer.outputs:
        found["outputs"] = {
            name: {"dtype": tensor.dtype, "shape": tensor.shape, "values": _array(tensor).tolist()}
            for name, tensor in answer.outputs.items()
        }
    return found | {"timings": answer.timings, "batch": answer.batch}


def _show(answer: Inference, title: str, out: Path | None, *, json: bool) -> None:
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        for number, (name, tensor) in enumerate(answer.outputs.items()):
            safe = name if name.replace("_", "").replace(".", "").isalnum() and name[0] != "." else f"output-{number}"
            np.save(out / f"{safe}.npy", _array(tensor))
    if json:
        typer.echo(jsonlib.dumps(({"file": title} if title else {}) | as_map(answer)))
        return
    start = f"{printable(title)}: " if title else ""
    for label in answer.labels:
        typer.echo(f"{start}{printable(label.label)}  {label.score:.1%}")
    for box in answer.boxes:
        place = " ".join(f"{edge:.0f}" for edge in box.box)
        typer.echo(f"{start}{printable(box.label)}  {box.score:.1%}  at {place}")
    for name, tensor in answer.outputs.items():
        values = _array(tensor).reshape(-1)
        shown = " ".join(f"{value:.6g}" for value in values[:MOST_SHOWN])
        more = " ..." if len(values) > MOST_SHOWN else ""
        typer.echo(f"{start}{printable(name)}  {tensor.dtype} {list(tensor.shape)}: {shown}{more}")
    if not (answer.labels or answer.boxes or answer.outputs):
        typer.echo(f"{start}nothing above the threshold")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--image") from None


def _read_tensors(given: list[str]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for each in given:
        name, _, file = each.partition("=")
        if not name or not file:
            raise typer.BadParameter(f"{each!r}: write it as NAME=FILE.npy", param_hint="--input")
        try:
            values = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise typer.BadParameter(f"{file}: no .npy file that can be read ({error})", param_hint="--input") from None
        little = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
        found[name] = Tensor(values.dtype.name, values.shape, little.tobytes())
    return found


def _array(tensor: Tensor) -> Any:
    return np.frombuffer(tensor.data, np.dtype(tensor.dtype).newbyteorder("<")).reshape(tensor.shape)
