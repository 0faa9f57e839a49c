"""phi3v models behind the `Backend` interface: onnxruntime-genai's pipeline of vision, embedding and decoder graph.

The tensors its processor would make are made here (engine/images/crops.py), since it knows one number of squares only:
so a picture may be looked at closely or not, and no decoder of the library ever sees a client's bytes. The library
reads pictures in one call with the whole prompt before them, as the first call on a generator; text after them is read
in slices as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.engine.backends import interruptible
from edged.engine.backends.base import Slot
from edged.engine.backends.genai import GenaiBackend, GenaiSlot
from edged.engine.images.crops import SIDE, pixel_values
from edged.engine.images.pictures import Picture
from edged.errors import Internal


class GenaiVisionBackend(GenaiBackend):
    """One vision language model on one execution provider."""

    def encode_chat(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        pieces = [message["content"] for message in messages]
        pieces = [[content] if isinstance(content, str) else content for content in pieces]
        texts = [piece for content in pieces for piece in content if isinstance(piece, str)]
        pictures = [piece for content in pieces for piece in content if isinstance(piece, Picture)]
        mark, here = self._plain.choose_marks(texts, 2)
        marked = [
            {
                "role": message["role"],
                "content": "".join(
                    self._plain.mark(piece, mark) if isinstance(piece, str) else f"{here}\n" for piece in content
                ),
            }
            for message, content in zip(messages, pieces, strict=True)
        ]
        chunks = self._templated(marked).split(here)
        if len(chunks) != len(pictures) + 1:
            raise Internal("the model's chat template dropped a picture")
        ids = self._encode_marked(chunks[0], mark)
        for picture, chunk in zip(pictures, chunks[1:], strict=True):
            ids += picture.tokens + self._encode_marked(chunk, mark)  # as the library's own processor cuts it
        return ids

    def see(self, slot: Slot, tokens: Sequence[int], pictures: Sequence[Picture], stopped: Callable[[], bool]) -> None:
        assert isinstance(slot, GenaiSlot)
        assert not slot.tokens, "pictures are read first"
        inputs = _inputs(tokens, pictures)
        interruptible.call(slot.generator, lambda: slot.generator.set_inputs(inputs), stopped)
        slot.tokens.extend(tokens)
        slot.read_tokens = len(tokens)


def _inputs(tokens: Sequence[int], pictures: Sequence[Picture]) -> dict[str, NDArray[Any]]:
    """What Phi-3-vision's graphs take: the n-th run of a picture's tokens becomes a run of −n."""
    ids = np.asarray(tokens, dtype=np.int64)
    is_picture = ids < 0
    begins = is_picture & np.concatenate(([True], ids[1:] != ids[:-1]))
    numbers = np.cumsum(begins, dtype=np.int64)
    ids = np.where(is_picture, -numbers, ids).astype(np.int32)
    if int(begins.sum()) != len(pictures):
        raise Internal("the prompt does not hold the pictures that came with it")
    views = [pixel_values(picture.image) for picture in pictures]
    pixels = np.zeros((len(views), max(len(view) for view in views), 3, SIDE, SIDE), dtype=np.float32)
    for row, view in zip(pixels, views, strict=True):
        row[: len(view)] = view
    sizes = [[picture.grid.rows * SIDE, picture.grid.columns * SIDE] for picture in pictures]
    return {
        "input_ids": ids[None],
        "pixel_values": pixels,
        "image_sizes": np.array(sizes, dtype=np.int64),
        "num_image_tokens": np.array([picture.grid.tokens for picture in pictures], dtype=np.int64),
    }
