"""Muon for the matrices of the layers, AdamW for embedding, head and gains."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(batch: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration of Muon (Jordan et al., 2024) on a batch of matrices [N, rows, columns]."""
    a, b, c = _COEFFICIENTS
    x = batch.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum, then the nearest orthogonal matrix. Fused projections are taken apart into `pieces` first."""

    def __init__(self, parameters: list[tuple[nn.Parameter, int]], lr: float, momentum: float = 0.95) -> None:
        groups = [{"params": [parameter], "pieces": pieces} for parameter, pieces in parameters]
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.2})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update; matrices of the same shape are handled together."""
        by_shape: dict[tuple[int, int], list[tuple[nn.Parameter, float, float, Tensor]]] = defaultdict(list)
        for group in self.param_groups:
            parameter = group["params"][0]
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["buffer"] = torch.zeros_like(parameter)
            buffer: Tensor = state["buffer"]
            buffer.lerp_(parameter.grad, 1 - group["momentum"])
            update = torch.lerp(parameter.grad, buffer, group["momentum"])
            pieces = update.view(group["pieces"], -1, parameter.shape[1])
            shape = (pieces.shape[1], pieces.shape[2])
            by_shape[shape].append((parameter, group["lr"], group["weight_decay"], pieces))
        for (rows, columns), items in by_shape.items():
            done = orthogonalise(torch.cat([pieces for *_, pieces in items]))
            gain = max(1.0, rows / columns) ** 0.5
            at = 0
            for parameter, lr, decay, pieces in items:
                update = done[at : at + len(pieces)].reshape(parameter.shape)
                at += len(pieces)
                parameter.mul_(1 - lr * decay).add_(update, alpha=-lr * gain)


def make_optimizers(
    model: nn.Module, matrix_lr: float, embedding_lr: float, other_lr: float
) -> list[torch.optim.Optimizer]:
    """The two optimizers that share the parameters. A token is seen seldom, so that its embedding needs a high rate."""
    matrices: list[tuple[nn.Parameter, int]] = []
    embedding: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name:
            embedding.append(parameter)
        elif parameter.dim() == 2 and ".layers." in name:
            matrices.append((parameter, 3 if "qkv" in name else 2 if "gate_up" in name else 1))
        else:
            others.append(parameter)
    groups = [{"params": embedding, "lr": embedding_lr}, {"params": others, "lr": other_lr}]
    return [Muon(matrices, matrix_lr), torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.0)]
