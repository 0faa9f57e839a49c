"""What a vision model's processor_config.json says: that it looks at pictures as Phi-3-vision does, and how closely."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edged.errors import ModelError
from edged.store.folder import read_json_object
from edged.store.genai_keys import CONFIG_FILE

STEPS = ("DecodeImage", "ConvertRGB", "Phi3ImageTransform")
MOST_CROPS = 16


def read_most_crops(folder: Path, file: str) -> int:
    """Into how many squares the model looks at one picture at most, 1 to 16.

    Raises ModelError for a pipeline other than Phi-3-vision's: edged makes the tensors itself and knows no other.
    onnxruntime-genai 0.18 has no use for the number and always takes 16.
    """
    config = read_json_object(folder, file, CONFIG_FILE)
    steps = [_operation(step) for step in _list(_object(config, "processor"), "transforms")]
    if tuple(step.get("type") for step in steps) != STEPS:
        raise ModelError(folder, file, f"describes another pipeline than {' → '.join(STEPS)}, the one that edged runs")
    crops = _object(steps[-1], "attrs").get("num_crops", MOST_CROPS)
    if not isinstance(crops, int) or isinstance(crops, bool) or not 1 <= crops <= MOST_CROPS:
        raise ModelError(folder, file, f'"num_crops" must be a whole number from 1 to {MOST_CROPS}')
    return crops


def _operation(step: object) -> dict[str, Any]:
    return _object(step, "operation") if isinstance(step, dict) else {}


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    found = holder.get(key)
    return found if isinstance(found, dict) else {}


def _list(holder: dict[str, Any], key: str) -> list[Any]:
    found = holder.get(key)
    return found if isinstance(found, list) else []
