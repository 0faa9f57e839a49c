"""processor_config.json of vision models: Phi-3-vision's pipeline and how closely it looks, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edged.errors import ModelError
from edged.store.processor import read_most_crops


def written(folder: Path, types: tuple[str, ...], attributes: dict[str, Any]) -> Path:
    steps: list[dict[str, Any]] = [{"operation": {"name": kind.lower(), "type": kind}} for kind in types]
    if steps:
        steps[-1]["operation"]["attrs"] = attributes
    (folder / "p.json").write_text(json.dumps({"processor": {"name": "image_processing", "transforms": steps}}))
    return folder


PHI3V = ("DecodeImage", "ConvertRGB", "Phi3ImageTransform")


@pytest.mark.parametrize(("attributes", "crops"), [({"num_crops": 4}, 4), ({}, 16), ({"num_crops": 16}, 16)])
def test_how_closely(tmp_path: Path, attributes: dict[str, Any], crops: int) -> None:
    assert read_most_crops(written(tmp_path, PHI3V, attributes), "p.json") == crops


@pytest.mark.parametrize("types", [(), PHI3V[:2], ("DecodeImage", "Resize", "Phi3ImageTransform")])
def test_another_pipeline_is_refused(tmp_path: Path, types: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="another pipeline"):
        read_most_crops(written(tmp_path, types, {}), "p.json")


@pytest.mark.parametrize("crops", [0, 17, "4", True, 2.5])
def test_a_wrong_number_is_refused(tmp_path: Path, crops: object) -> None:
    with pytest.raises(ModelError, match="num_crops"):
        read_most_crops(written(tmp_path, PHI3V, {"num_crops": crops}), "p.json")
