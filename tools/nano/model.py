"""A lean Phi-3 in PyTorch for training on a CPU; its parameters carry the names of Hugging Face's Phi3ForCausalLM."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nano.induction import start_with_induction

INT4_BLOCK = 32


def fake_int4(weight: Tensor) -> Tensor:
    """The weight as int4 keeps it (symmetric, blocks of 32 along the input, round to nearest), gradient passed through.

    The same rule as onnxruntime's MatMulNBits quantizer: the scale is the element of largest magnitude over -8.
    """
    blocks = weight.detach().view(weight.shape[0], -1, INT4_BLOCK)
    peak = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True))
    scale = peak / -8
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    rounded = (torch.round(blocks / safe).clamp(-8, 7) * scale).view_as(weight)
    return weight + (rounded - weight.detach())


class Linear(nn.Linear):
    """A bias-free linear map that can pretend to be int4."""

    quantised = False

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] -> [..., outputs]."""
        return F.linear(x, fake_int4(self.weight) if self.quantised else self.weight)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, half-split layout. x [B, heads, T, head_dim]; cos, sin [T, head_dim]."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Attention(nn.Module):
    """Causal self-attention with as many key heads as query heads."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = Linear(hidden, 3 * hidden)
        self.o_proj = Linear(hidden, hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """x [B, T, hidden], mask [B, 1, T, T] (True: may look)."""
        batch, length, hidden = x.shape
        q, k, v = self.qkv_proj(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.o_proj(y.transpose(1, 2).reshape(batch, length, hidden))
        return out


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_up_proj = Linear(hidden, 2 * inner)
        self.down_proj = Linear(inner, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., hidden] -> [..., hidden]."""
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        out: Tensor = self.down_proj(F.silu(gate) * up)
        return out


class RMSNorm(nn.Module):
    """Root-mean-square normalisation with a learnt gain."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., hidden] -> the same."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, hidden: int, heads: int, inner: int) -> None:
        super().__init__()
        self.self_attn = Attention(hidden, heads)
        self.mlp = MLP(hidden, inner)
        self.input_layernorm = RMSNorm(hidden)
        self.post_attention_layernorm = RMSNorm(hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """x [B, T, hidden] -> the same."""
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Trunk(nn.Module):
    """Everything but the head."""

    def __init__(self, vocab: int, hidden: int, layers: int, heads: int, inner: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab, hidden)
        self.layers = nn.ModuleList(Block(hidden, heads, inner) for _ in range(layers))
        self.norm = RMSNorm(hidden)
        self.head_dim = hidden // heads

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """ids [B, T] -> hidden states [B, T, hidden]."""
        steps = torch.arange(0, self.head_dim, 2, device=ids.device).float()
        angles = torch.outer(torch.arange(ids.shape[1]).float(), 10000.0 ** (-steps / self.head_dim))
        angles = torch.cat((angles, angles), -1)
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        x = self.embed_tokens(ids)  # the residual stream stays in float32
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        out: Tensor = self.norm(x)
        return out


class NanoModel(nn.Module):
    """The language model: trunk and head."""

    def __init__(self, vocab: int, hidden: int, layers: int, heads: int, inner: int) -> None:
        super().__init__()
        self.model = Trunk(vocab, hidden, layers, heads, inner)
        self.lm_head = Linear(hidden, vocab)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = 0.5 if "embed" in name else parameter.shape[1] ** -0.5 * (0.2 if deep else 0.8)
                nn.init.normal_(parameter, std=std)
        start_with_induction(
            self.model.embed_tokens, [layer.self_attn for layer in self.model.layers[:3]], self.lm_head
        )

    def quantise(self, on: bool) -> None:
        """Train on int4-rounded weights from here on, or stop doing so."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.quantised = on
