"""scikit-learn's bundled digits, and the split: the images are in the order in which they were collected, writer after
writer, so the last fifth holds writers that are hardly in the rest. A shuffled split would be easier and say less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAIN_IMAGES = 1437  # of 1,797: four fifths
INK_MOST = 16.0  # a pixel counts the ink in 4 x 4 cells


@dataclass(frozen=True)
class Digits:
    """`images` [n, 8, 8], ink from 0 to 1; `labels` [n]."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load_split() -> tuple[Digits, Digits]:
    """Train and test part. The test part takes no part in training, nor in choosing anything."""
    from sklearn.datasets import load_digits

    bundle: Any = load_digits()
    images, labels = (bundle.images / INK_MOST).astype(np.float32), bundle.target.astype(np.int64)
    return Digits(images[:TRAIN_IMAGES], labels[:TRAIN_IMAGES]), Digits(images[TRAIN_IMAGES:], labels[TRAIN_IMAGES:])
