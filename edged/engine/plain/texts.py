"""Texts to token tensors and token vectors to one vector a text. The one importer of the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.errors import ModelError
from edged.store.graph_types import TensorInfo
from edged.store.plain_fields import Embed
from edged.store.plain_manifest import MANIFEST_FILE

Array = NDArray[Any]
FED = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}


class Texts:
    """A model's tokenizer, and what its inputs are called."""

    def __init__(self, folder: Path, spec: Embed, inputs: Sequence[TensorInfo]) -> None:
        """Raises ModelError when the tokenizer cannot be had or the graph wants what no text gives."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ModelError(
                folder, MANIFEST_FILE, "embed needs the library tokenizers: pip install 'edged[embed]'"
            ) from error
        for tensor in inputs:
            if tensor.name not in FED or len(tensor.dims) != 2 or tensor.dtype not in ("int64", "int32"):
                raise ModelError(
                    folder,
                    MANIFEST_FILE,
                    f"embed: the graph wants {tensor.name[:60]!r} ({tensor.dtype}); a text gives "
                    f"{', '.join(FED)} as int64 [batch, tokens]",
                )
        self._spec, self._inputs = spec, tuple(inputs)
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(folder / spec.tokenizer))
        except Exception as error:  # the library raises bare Exception
            raise ModelError(folder, spec.tokenizer, f"is no tokenizer that can be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(spec.max_tokens)

    def encode(self, text: str) -> Any:
        """One text as tokens, cut at `max_tokens`."""
        return self._tokenizer.encode(self._spec.prefix + text)

    def feeds(self, encoded: Sequence[Any]) -> dict[str, Array]:
        """The graph's inputs for these texts: rows padded on the right with zeros, which the mask leaves out."""
        longest = max(1, *(len(each.ids) for each in encoded))
        made: dict[str, Array] = {}
        for tensor in self._inputs:
            rows = np.zeros((len(encoded), longest), tensor.dtype)
            for row, each in zip(rows, encoded, strict=True):
                row[: len(each.ids)] = getattr(each, FED[tensor.name])
            made[tensor.name] = rows
        return made


def pooled(output: Array, tokens: int, pooling: str) -> Array:
    """The vector [1, width] of one text from its row: [1, padded, width], or [1, width] when the graph pools."""
    values = output.astype(np.float32, copy=False)
    if pooling == "cls":
        return values[:, 0]
    if pooling == "mean":
        mean: Array = values[:, : max(1, tokens)].mean(axis=1)
        return mean
    return values


def normalized(vectors: Array) -> Array:
    """Each of length 1; one of nothing but zeros stays so."""
    result: Array = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return result
