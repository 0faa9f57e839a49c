"""`edged watch`: each new frame of a folder or a camera through a model, one line of JSON for each."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edged.cli import exits
from edged.cli.infer_cmd import Model, Threshold, Timeout, TopK, as_map, infer_options
from edged.cli.options import Endpoint
from edged.client.plain import InferOptions
from edged.errors import RequestError
from edged.watch.frames import FolderSource, Source

if TYPE_CHECKING:
    from edged.client import Client

LOOK_S = 0.05


def watch(
    model: Model,
    source: Annotated[str, typer.Argument(help="A folder that images are written to, or a camera (/dev/video0).")],
    most_per_s: Annotated[
        float, typer.Option(min=0.001, max=1000, help="The most frames a second; older ones are passed over.")
    ] = 5.0,
    count: Annotated[int, typer.Option(min=0, help="End after so many results; 0: never.")] = 0,
    top_k: TopK = None,
    threshold: Threshold = None,
    timeout: Timeout = None,
    endpoint: Endpoint = None,
) -> None:
    """Run each new frame through a model and print one line of JSON for it.

    When frames come faster than they can be answered, the newest is taken and the older ones are dropped: `dropped`
    says how many. A frame that is refused is a line with an `error`, and the watch goes on.
    """
    from edged.cli.private_daemon import daemon_or_private
    from edged.client import Client

    options = infer_options(top_k, threshold, timeout)
    with daemon_or_private(endpoint, model) as (found, private), Client(found) as client:
        if not private:
            options["model"] = model
        frames = _open(source)
        typer.echo(f"edged: watching {source} with {model}", err=True)
        try:
            _watch(client, frames, options, 1 / most_per_s, count)
        finally:
            frames.close()


def _watch(client: Client, frames: Source, options: InferOptions, interval_s: float, count: int) -> None:
    done, next_s = 0, 0.0
    while not count or done < count:
        frame = frames.newest() if time.monotonic() >= next_s else None
        if frame is None:
            time.sleep(LOOK_S)
            continue
        next_s = time.monotonic() + interval_s
        line: dict[str, object] = {"time": round(time.time(), 3), "frame": frame.name, "dropped": frame.dropped}
        try:
            line |= as_map(client.infer(frame.data, **options))
        except RequestError as error:
            line |= exits.error_map(error)
        typer.echo(json.dumps(line))
        done += 1


def _open(source: str) -> Source:
    path = Path(source)
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise typer.BadParameter(f"{source}: no such folder or device", param_hint="SOURCE")
    from edged.watch.camera import CameraSource

    return CameraSource(source)
