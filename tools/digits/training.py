"""A small convolutional network for 8 x 8 digits, trained with torch on images that are moved, turned and stretched."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from digits.data import Digits

CHANNELS, HIDDEN, CLASSES = (16, 32), 64, 10
EPOCHS, BATCH, PEAK_RATE = 120, 64, 4e-3
FINE = 32  # images are changed at this size, the size they were collected at, and averaged to 8 x 8 again


def make_network() -> nn.Sequential:
    """Convolution, convolution, pool, two linear layers; input [n, 1, 8, 8], output [n, 10]."""
    first, second = CHANNELS
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(second * 16, HIDDEN),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(HIDDEN, CLASSES),
    )


def train(part: Digits, seed: int) -> nn.Sequential:
    """A trained network; the same on the same machine for the same seed."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    images, labels = torch.from_numpy(part.images)[:, None], torch.from_numpy(part.labels)
    network = make_network()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    steps = EPOCHS * math.ceil(len(labels) / BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, steps)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(labels)).split(BATCH):
            loss = functional.cross_entropy(network(changed(images[chosen])), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
            rate.step()
    return network.eval()


def changed(images: Tensor) -> Tensor:
    """Turned by up to 12 degrees, stretched and sheared a little, moved by up to a pixel, ink thinned or thickened."""
    count = len(images)

    def spread(width: float) -> Tensor:
        return (torch.rand(count) * 2 - 1) * width

    turn, shear = spread(math.radians(12)), spread(0.15)
    across, down = 1 + spread(0.12), 1 + spread(0.12)
    rows = torch.stack(
        [
            torch.stack([across * torch.cos(turn), shear - torch.sin(turn), spread(0.2)], dim=1),
            torch.stack([torch.sin(turn), down * torch.cos(turn), spread(0.15)], dim=1),
        ],
        dim=1,
    )
    fine = functional.interpolate(images, size=(FINE, FINE), mode="bilinear", align_corners=False)
    grid = functional.affine_grid(rows, [count, 1, FINE, FINE], align_corners=False)
    moved = functional.grid_sample(fine, grid, align_corners=False)
    small = functional.avg_pool2d(moved, FINE // 8)
    return small.clamp(0, 1) ** torch.exp(spread(0.35))[:, None, None, None]


def weights_of(network: nn.Sequential) -> dict[str, np.ndarray]:
    """The network's arrays by the names that export.py uses."""
    layers = [layer for layer in network if isinstance(layer, nn.Conv2d | nn.Linear)]
    return {
        f"{name}{kind}": tensor.detach().numpy()
        for name, layer in zip(("conv1", "conv2", "dense1", "dense2"), layers, strict=True)
        for kind, tensor in (("_w", layer.weight), ("_b", layer.bias))
    }
