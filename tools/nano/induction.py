"""Starting values with which the model can look things up before it has learnt anything.

To answer "what stands behind this word further up" a transformer needs heads that fetch the tokens just before each
token, heads in the next layer that compare those with the newest tokens, and a way from what they find to the output.
Gradient descent discovers the chain after a plateau that is longer than all the training this model gets. So the chain
is there from the start, in the first three layers and the head, and is trained like everything else from then on.

The hidden space is divided: one constant component, a part in which each token says its name, and one part for the name
of each fetched token. Rotary position embedding leaves its slow pairs nearly alone over short ways: names are compared
in those, distances in the fast ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

_CONSTANT = 3.0  # the component all embeddings share
_EMBEDDING_STD = 0.5
_SHARPNESS = 7.0  # makes the right distance win by about six in the exponent
_FAST_PAIRS = 6  # rotations that tell near distances apart
_FETCHED_SCALE = 1.5  # of a fetched name, against one of 0.5 for the token's own
_MATCH_SCALE = 2.1  # makes a match of names count about twelve in the exponent
_FOUND_SCALE = 1.0  # of a name that was looked up
_HEAD_SCALE = 0.15  # of the names in the output head
_VALUE_DISTANCES = (0, 2, 3)  # the digits of "21.5" from its end
_LINE_DISTANCE = 6  # from the end of "kitchen: 21.5" back to the place


class AttentionWeights(Protocol):
    """What is set here of an attention layer."""

    heads: int
    qkv_proj: nn.Linear
    o_proj: nn.Linear


@dataclass(frozen=True)
class _Parts:
    """How the hidden space is divided. `readers[d]` [names, hidden] reads the name of the token d places back."""

    name: Tensor
    fetched: list[Tensor]
    readers: list[Tensor]
    found: Tensor


@torch.no_grad()
def start_with_induction(embedding: nn.Embedding, layers: list[AttentionWeights], head: nn.Linear) -> None:
    """Set embedding, the attention of the first three layers and the output head."""
    first, second, third = layers
    embedding.weight[:, 0] = _CONSTANT
    parts = _divide(first)
    normed_std = _normed_std(first.o_proj.weight.shape[0])
    _fetch_previous(first, parts, _CONSTANT / _EMBEDDING_STD * normed_std)
    _find_next(second, parts)
    _find_place_of_value(third, parts)
    names = embedding.weight @ parts.name.T * (normed_std / _EMBEDDING_STD)
    head.weight.copy_(names @ parts.found * _HEAD_SCALE)


def _normed_std(hidden: int) -> float:
    """Of the components of an embedding behind the first norm."""
    return float(_EMBEDDING_STD / (_CONSTANT**2 / hidden + _EMBEDDING_STD**2) ** 0.5)


def _divide(first: AttentionWeights) -> _Parts:
    hidden, heads = first.o_proj.weight.shape[0], first.heads
    own = hidden // 4
    size = (hidden - 1 - own) // heads
    seed = torch.randn(hidden, hidden)
    seed[:, 0] = 0.0
    seed[0, 0] = 1.0
    basis = torch.linalg.qr(seed)[0].T  # its first row is the constant
    normed_std = _normed_std(hidden)
    name = torch.randn(size, own) / (own**0.5 * normed_std) @ basis[1 : 1 + own]
    fetched = [basis[1 + own + at * size :][:size] for at in range(heads)]
    rms = (_FETCHED_SCALE**2 * heads * size / hidden + _EMBEDDING_STD**2 + _CONSTANT**2 / hidden) ** 0.5
    readers = [name * (rms * normed_std / _EMBEDDING_STD), *(part * (rms / _FETCHED_SCALE) for part in fetched)]
    return _Parts(name, fetched, readers, torch.linalg.qr(torch.randn(hidden, size))[0].T)


def _fetch_previous(layer: AttentionWeights, parts: _Parts, normed_constant: float) -> None:
    """Head n fetches the name of the token n + 1 back: queries and keys of the constant alone, peaked at a distance."""
    hidden, heads = layer.o_proj.weight.shape[0], layer.heads
    head_dim = hidden // heads
    frequencies = (10000.0 ** (-torch.arange(0, head_dim, 2) / head_dim))[:_FAST_PAIRS]
    q, k = layer.qkv_proj.weight[: 2 * hidden].zero_().view(2, heads, 2, head_dim // 2, hidden)
    for head in range(heads):
        q[head, 0, :_FAST_PAIRS, 0] = torch.cos(frequencies * (head + 1)) * _SHARPNESS / normed_constant
        q[head, 1, :_FAST_PAIRS, 0] = -torch.sin(frequencies * (head + 1)) * _SHARPNESS / normed_constant
        k[head, 0, :_FAST_PAIRS, 0] = _SHARPNESS / normed_constant
        _copy(layer, head, parts.name, parts.fetched[head] * _FETCHED_SCALE)


def _copy(layer: AttentionWeights, head: int, read: Tensor, write: Tensor) -> None:
    """Let a head carry what `read` [names, hidden] reads to the directions `write` [names, hidden]."""
    hidden = layer.o_proj.weight.shape[0]
    head_dim = hidden // layer.heads
    values = layer.qkv_proj.weight[2 * hidden :].view(layer.heads, head_dim, hidden)
    outputs = layer.o_proj.weight.view(hidden, layer.heads, head_dim)
    values[head].zero_()
    outputs[:, head].zero_()
    values[head, : len(read)] = read
    outputs[:, head, : len(write)] = write.T


def _compare(layer: AttentionWeights, head: int, asked: Tensor, offered: Tensor) -> None:
    """Let a head attend to where `offered` reads what `asked` reads at the newest token."""
    hidden = layer.o_proj.weight.shape[0]
    head_dim = hidden // layer.heads
    half = head_dim // 2
    slow = torch.cat((torch.arange(half // 2, half), torch.arange(half + half // 2, head_dim)))
    q, k = layer.qkv_proj.weight[: 2 * hidden].view(2, layer.heads, head_dim, hidden)
    q[head].zero_()
    k[head].zero_()
    q[head, slow] = asked[: len(slow)] * _MATCH_SCALE
    k[head, slow] = offered[: len(slow)] * _MATCH_SCALE


def _find_next(layer: AttentionWeights, parts: _Parts) -> None:
    """Head n attends to where the token n back has stood n + 1 back before: what stands there came next."""
    for head in range(layer.heads):
        _compare(layer, head, parts.readers[head], parts.readers[head + 1])
        _copy(layer, head, parts.readers[0], parts.found * _FOUND_SCALE)


def _find_place_of_value(layer: AttentionWeights, parts: _Parts) -> None:
    """Two heads attend to where the same value has stood before and fetch the place of that line."""
    each = layer.o_proj.weight.shape[0] // layer.heads // 6
    for head in range(2):
        rows = slice(head * each, (head + 1) * each + 1)
        digits = torch.cat([parts.readers[distance][rows] for distance in _VALUE_DISTANCES])
        _compare(layer, head, digits, digits)
        _copy(layer, head, parts.readers[_LINE_DISTANCE], parts.found * 2 * _FOUND_SCALE)
