"""From a plain model's folder to a runner that has answered: check, choose a provider, load, warm up, measure."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edged.engine.choose import selection_map
from edged.engine.fallback import open_on_best
from edged.engine.load import CARD_PROVIDERS, make_memory
from edged.engine.memory import EngineMemory
from edged.engine.neighbours import anonymous_bytes
from edged.engine.options import EngineOptions
from edged.engine.plain.job import Row, Task
from edged.engine.plain.model import Runner
from edged.engine.plain.tasks import ImageTask, TensorTask, TextTask
from edged.engine.plain.texts import Texts
from edged.errors import ModelError
from edged.hardware.selection import Selection
from edged.protocol.pulse import PulseWriter
from edged.store.plain_manifest import PlainModel, read_plain

WARM_UP_TEXT = "Which sensor is the warmest now?"


@dataclass(frozen=True, slots=True)
class LoadedPlain:
    """A plain model ready to serve; `tasks` by what a request brings: `image`, `text`, `tensors`."""

    model: PlainModel
    runner: Runner
    tasks: dict[str, Task]
    memory: EngineMemory
    selection: Selection
    load_s: float

    def info(self) -> dict[str, Any]:
        """As `models` and `status` show it."""
        return {
            "type": self.model.kind,
            "task": self.model.manifest.task,
            "ops": ["embed", "infer"] if "text" in self.tasks else ["infer"],
            "description": self.model.manifest.description,
            "classes": len(self.model.labels) or None,
            "max_batch": self.runner.max_rows,
            "inputs": {tensor.name: [tensor.dtype, *tensor.dims] for tensor in self.model.inputs},
            "outputs": {tensor.name: [tensor.dtype, *tensor.dims] for tensor in self.model.outputs},
            "weights_bytes": self.model.weights_bytes,
            "provider": self.selection.got.ort_name,
            "selection": selection_map(self.selection),
            "load_s": round(self.load_s, 3),
        }


def load_plain(options: EngineOptions, pulse: PulseWriter, tell: Callable[..., None]) -> LoadedPlain:
    """Load the model named in `options`. Raises ModelError, also when it does not fit into memory."""
    started_s = time.monotonic()
    folder = Path(options.folder)
    tell("checking the model's files")
    model = read_plain(folder)
    memory = make_memory(options)
    memory.check_room(model)
    pulse.beat(options.load_timeout_s)
    from edged.engine.backends.ort import OrtBackend  # the native library: not before the folder was checked

    def open_on(selection: Selection) -> LoadedPlain:
        pulse.beat(options.load_timeout_s)
        strict = options.strict_provider
        backend = OrtBackend(folder, model.manifest.file, selection.got, selection.setting, strict=strict)
        runner = Runner(model, backend, pulse)
        tasks = _tasks(model, options)
        tell("running it a first time")
        before_bytes = anonymous_bytes()
        _warm_up(runner, tasks)
        grown_bytes = max(0, anonymous_bytes() - before_bytes)  # onnxruntime's arena keeps what a run took
        memory.loaded(grown_bytes * runner.max_rows, on_card=selection.got.key in CARD_PROVIDERS)
        return LoadedPlain(model, runner, tasks, memory, selection, time.monotonic() - started_s)

    return open_on_best(options, tell, open_on)[0]


def _tasks(model: PlainModel, options: EngineOptions) -> dict[str, Task]:
    manifest = model.manifest
    if manifest.embed:
        return {
            "text": TextTask(model, Texts(model.folder, manifest.embed, model.inputs)),
            "tensors": TensorTask(model),
        }
    if manifest.image:
        return {"image": ImageTask(model, options.image_limits), "tensors": TensorTask(model)}
    return {"tensors": TensorTask(model)}


def _warm_up(runner: Runner, tasks: dict[str, Task]) -> None:
    """With an empty image or a text of ours. A model of tensors only is run if its graph says their sizes."""
    task = next(iter(tasks.values()))
    model = runner.model
    if isinstance(task, TextTask):
        item = task.encode(WARM_UP_TEXT)
        runner.warm_up(task, task.key(item), Row(item, 1, len(item.ids)))
    elif isinstance(task, ImageTask):
        item = task.empty()
        runner.warm_up(task, task.key(item), task.prepare(item, None))
    elif all(isinstance(dim, int) for tensor in model.inputs for dim in tensor.dims[1:]):
        shapes = {tensor.name: (tensor, [_one(dim) for dim in tensor.dims]) for tensor in model.inputs}
        try:
            arrays = {name: np.zeros(shape, tensor.dtype) for name, (tensor, shape) in shapes.items()}
        except TypeError as error:
            raise ModelError(
                model.folder, model.manifest.file, f"takes what is no tensor of numbers: {error}"
            ) from error
        runner.warm_up(task, task.key(arrays), Row(arrays))


def _one(dim: int | str) -> int:
    return dim if isinstance(dim, int) else 1
