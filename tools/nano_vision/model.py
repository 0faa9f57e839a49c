"""The nano vision model in PyTorch: a small convolutional encoder in the place of CLIP, and a Phi-3 decoder.

A picture becomes the 313 tokens of Phi-3.5-vision's one-crop form: 12 rows of 12 and a line break for the crop, a
separator, the same for the small view of the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nano.model import Block, Linear, RMSNorm
from nano_vision.plan import Shape

GRID = 12
CELLS = GRID * GRID
IMAGE_TOKENS = 2 * (CELLS + GRID) + 1
MOST_IMAGES = 8  # pictures that are told apart by their number
SEEN = {"shape": 6, "colour": 7, "digit": 12, "gauge": 12}  # what stands in a cell: class 0 is nothing


class ConvNorm(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        out: Tensor = F.relu(self.norm(self.conv(x)))
        return out


class Encoder(nn.Module):
    """Pixels [B, 3, 336, 336] -> features [B, 144, channels], one for each cell of 28 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.ModuleList(
            [
                ConvNorm(3, 64, 9, 7, 1),
                ConvNorm(64, 128, 3, 2, 1),
                ConvNorm(128, channels, 3, 2, 1),
            ]
        )
        self.body = nn.ModuleList([ConvNorm(channels, channels, 3, 1, 1) for _ in range(2)])

    def forward(self, pixels: Tensor) -> Tensor:
        """See the class."""
        x = pixels
        for layer in self.stem:
            x = layer(x)
        for layer in self.body:
            x = x + layer(x)
        return x.flatten(2).transpose(1, 2)


class Projector(nn.Module):
    """Cell features to image tokens: a linear map of what is there and of what is other than in the picture before,
    where the cell is, which view it is; line breaks, the separator."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.cell = nn.Linear(channels, hidden)
        self.change = nn.Linear(channels, hidden, bias=False)
        self.place = nn.Parameter(torch.randn(CELLS, hidden) * 0.3)
        self.crop_view = nn.Parameter(torch.randn(hidden) * 0.3)
        self.small_view = nn.Parameter(torch.randn(hidden) * 0.3)
        self.line_break = nn.Parameter(torch.randn(hidden) * 0.5)
        self.separator = nn.Parameter(torch.randn(hidden) * 0.5)

    def forward(self, features: Tensor, pictures: int) -> Tensor:
        """features [B, 144, channels] -> tokens [B, 313, hidden], for pictures of one crop, `pictures` to each row."""
        batch = features.shape[0]
        rows = features.unflatten(0, (batch // pictures, pictures))
        before = torch.cat((rows[:, :1], rows[:, :-1]), 1)  # the first has changed in nothing
        cells = self.cell(features) + self.change((rows - before).flatten(0, 1)) + self.place
        views = [self._with_breaks(cells + view) for view in (self.crop_view, self.small_view)]
        return torch.cat((views[0], self.separator.expand(batch, 1, -1), views[1]), 1)

    def _with_breaks(self, cells: Tensor) -> Tensor:
        batch, _, hidden = cells.shape
        rows = cells.view(batch, GRID, GRID, hidden)
        ends = self.line_break.expand(batch, GRID, 1, hidden)
        return torch.cat((rows, ends), 2).reshape(batch, GRID * (GRID + 1), hidden)


class Trunk(nn.Module):
    """The decoder but for its head; the names are those of Hugging Face's Phi3Model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape.hidden, shape.heads, shape.inner) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden)
        self.head_dim = shape.hidden // shape.heads

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """Embeddings x [B, T, hidden], positions [B, T], mask [B, 1, T, T] -> hidden states [B, T, hidden]."""
        steps = torch.arange(0, self.head_dim, 2, device=x.device).float()
        angles = positions[:, None, :, None].float() * 10000.0 ** (-steps / self.head_dim)
        angles = torch.cat((angles, angles), -1)
        dtype = torch.bfloat16 if torch.is_autocast_enabled("cpu") else torch.float32
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        out: Tensor = self.norm(x)
        return out


class NanoVision(nn.Module):
    """Encoder, projector, decoder, head, and the heads that only training has: what stands in each cell."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.encoder = Encoder(shape.channels)
        self.projector = Projector(shape.channels, shape.hidden)
        self.number_embed_tokens = nn.Embedding(MOST_IMAGES + 1, shape.hidden)
        self.model = Trunk(shape)
        self.lm_head = Linear(shape.hidden, shape.vocab)
        self.seen = nn.ModuleDict({name: nn.Linear(shape.channels, classes) for name, classes in SEEN.items()})
        for name, parameter in self.model.named_parameters():
            if parameter.dim() == 2:
                deep = name.endswith(("o_proj.weight", "down_proj.weight"))
                std = 0.5 if "embed" in name else parameter.shape[1] ** -0.5 * (0.2 if deep else 0.8)
                nn.init.normal_(parameter, std=std)
        nn.init.normal_(self.number_embed_tokens.weight, std=0.3)

    def forward(self, pixels: Tensor, ids: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [B, T, hidden] and cell features [images, 144, channels].

        pixels [images, 3, 336, 336] in the order in which rows use them; ids [B, T], where −n stands for a token of
        a row's n-th picture.
        """
        features = self.encoder(pixels)
        tokens = self.projector(features, len(pixels) // len(ids))
        x = self.model.embed_tokens(ids.clamp(min=0))
        is_image = ids < 0
        x = x.masked_scatter(is_image[..., None], tokens.reshape(-1, tokens.shape[-1]).to(x.dtype))
        x = x + torch.where(is_image[..., None], self.number_embed_tokens((-ids).clamp(min=0)), 0.0)
        return self.model(x, positions, mask), features

    def quantise(self, on: bool) -> None:
        """Train on int4-rounded weights from here on, or stop doing so."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.quantised = on
