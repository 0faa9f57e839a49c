"""A model folder of either kind, checked and described: onnxruntime-genai's, or a plain ONNX model's."""

from __future__ import annotations

from pathlib import Path

from edged.store.manifest import ModelManifest, read_manifest
from edged.store.plain_manifest import PlainModel, is_plain, read_plain


def read_any(folder: Path) -> ModelManifest | PlainModel:
    """Checks the whole folder. Raises ModelError: which file, what is wrong, what to do."""
    return read_plain(folder) if is_plain(folder) else read_manifest(folder)
