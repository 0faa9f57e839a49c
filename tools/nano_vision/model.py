"""The nano vision model in PyTorch: a small convolutional encoder in the place of CLIP, and a Phi-3 decoder.

A picture becomes the 313 tokens of Phi-3.5-vision's one-crop form: 12 rows of 12 and a line break for the crop, a
separator, the same for the small view of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nano.model import Block, Linear, RMSNorm
from nano_vision.plan import Shape

GRID = 12
CELLS = GRID * GRID
IMAGE_TOKENS = 2 * (CELLS + GRID) + 1
SALIENCE = 3.0  # of the components by which lists are found, against 0.5 of others
MOST_IMAGES = 8  # pictures that are told apart by their number
PLACES = 9
THINGS, DIGITS = 5, 4  # entries of the lists
MIDDLE = slice(4, 8)  # the rows of cells in which a display stands
# What training asks of the encoder alone: of each cell, of each ninth of the picture, of each column of its middle, of
# the whole. Class 0 is nothing.
SEEN = {
    "cell_shape": 6,
    "cell_colour": 7,
    "cell_digit": 11,
    "place_shape": 6,
    "place_colour": 7,
    "column_digit": 11,
    "column_order": 5,
    "whole_digits": 5,
    "whole_point": 2,
    "whole_gauge": 12,
    "whole_things": 6,
}


@dataclass
class Features:
    """Of pictures: [B, 144, C] for the cells; the largest of them for each ninth [B, 9, C], for each column of the
    middle rows [B, 12, C], and for the whole [B, 1, C]."""

    cell: Tensor
    place: Tensor
    column: Tensor
    whole: Tensor


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


class Context(nn.Module):
    """Each cell is told of those up to five away: depth-wise convolution, then a mix of channels, added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(channels, channels, 11, 1, 5, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, channels, 12, 12] -> the same."""
        out: Tensor = x + self.mix(F.relu(self.norm(self.around(x))))
        return out


class Encoder(nn.Module):
    """Pixels [B, 3, 336, 336] -> Features; a cell is 28 pixels wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.ModuleList(
            [
                ConvNorm(3, 64, 9, 7, 1),
                ConvNorm(64, 128, 3, 2, 1),
                ConvNorm(128, channels, 3, 2, 1),
            ]
        )
        self.body = nn.ModuleList([ConvNorm(channels, channels, 3, 1, 1)])
        self.context = nn.ModuleList([Context(channels) for _ in range(2)])

    def forward(self, pixels: Tensor) -> Features:
        """See the class."""
        x = pixels
        for layer in self.stem:
            x = layer(x)
        for layer in self.body:
            x = x + layer(x)
        for layer in self.context:
            x = layer(x)
        return Features(
            x.flatten(2).transpose(1, 2),
            F.max_pool2d(x, GRID // 3).flatten(2).transpose(1, 2),
            x[:, :, MIDDLE].amax(2).transpose(1, 2),
            x.amax((2, 3))[:, None],
        )


class Look(nn.Module):
    """Features to the decoder's space: what is there, what is other than in the picture before, and where it is."""

    def __init__(self, channels: int, hidden: int, places: int) -> None:
        super().__init__()
        self.here = nn.Linear(channels, hidden)
        self.change = nn.Linear(channels, hidden, bias=False)
        self.place = nn.Parameter(torch.randn(places, hidden) * 0.3)

    def forward(self, features: Tensor, pictures: int) -> Tensor:
        """features [B, n, channels] -> [B, places, hidden] (n is 1 or `places`); `pictures` belong to each row."""
        rows = features.unflatten(0, (features.shape[0] // pictures, pictures))
        before = torch.cat((rows[:, :1], rows[:, :-1]), 1)  # the first has changed in nothing
        out: Tensor = self.here(features) + self.change((rows - before).flatten(0, 1)) + self.place
        return out


class Lists(nn.Module):
    """What the encoder has recognised, as short lists in reading order, one token for each entry: the things, the
    digits of a display, and what is other than in the picture before: the first thing that was not there so, and the
    first that is not there so any more.

    Chosen by the encoder's own verdicts, and an entry says them beside the features: a decoder as small as this
    compares names far sooner than features.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.thing = nn.Linear(channels, hidden)
        self.digit = nn.Linear(channels, hidden)
        self.digit_before = nn.Linear(channels, hidden, bias=False)
        self.shape = _names("place_shape", hidden)
        self.colour = _names("place_colour", hidden)
        self.mark = _names("column_digit", hidden)
        self.mark_before = _names("column_digit", hidden)
        self.entry = nn.Parameter(torch.randn(GRID, hidden) * 0.5)  # the last one is not used by a list

    def forward(self, features: Features, seen: dict[str, Tensor], place: Tensor, pictures: int) -> Tensor:
        """[B, 12, hidden]; `place` [9, hidden] is how a ninth of the picture is called."""
        shape, colour = seen["place_shape"].argmax(-1), seen["place_colour"].argmax(-1)
        dtype = features.place.dtype
        sure = {
            name: seen[name].detach().softmax(-1).to(dtype) for name in ("place_shape", "place_colour", "column_digit")
        }
        order = seen["column_order"].argmax(-1)[:, None] == torch.arange(1, DIGITS + 1)[:, None]
        columns = order.to(dtype) / order.sum(-1, keepdim=True).clamp(min=1).to(dtype)
        digits, marks = columns @ features.column, columns @ sure["column_digit"]
        shape_before, colour_before = _before(shape, pictures), _before(colour, pictures)
        recoloured = (shape != 0) & (shape_before != 0) & (colour != colour_before)
        changed = (shape != shape_before) | recoloured
        now = (features.place, sure["place_shape"], sure["place_colour"])
        earlier = tuple(_before(values, pictures) for values in now)

        def called(there: Tensor, count: int, values: tuple[Tensor, ...]) -> Tensor:
            chosen = _choose(there, count).to(dtype)
            looks, shapes, colours = (chosen @ each for each in values)
            out: Tensor = self.thing(looks) + self.shape(shapes) + self.colour(colours) + chosen @ place.to(dtype)
            return out

        entries = (
            called(shape != 0, THINGS, now),
            self.digit(digits)
            + self.digit_before(_before(digits, pictures))
            + self.mark(marks)
            + self.mark_before(_before(marks, pictures)),
            called((shape != 0) & changed, 1, now),
            called((shape_before != 0) & changed, 1, earlier),
            torch.zeros(len(shape), 1, place.shape[1], dtype=dtype),
        )
        return torch.cat(entries, 1) + self.entry


def _names(verdict: str, hidden: int) -> nn.Linear:
    """How each class of a verdict is called in the decoder's space; at first by nothing."""
    made = nn.Linear(SEEN[verdict], hidden, bias=False)
    nn.init.zeros_(made.weight)
    return made


def _choose(there: Tensor, count: int) -> Tensor:
    """[B, n] -> [B, count, n]: the k-th row marks the k-th that is there."""
    number = there.long().cumsum(-1) * there
    return number[:, None] == torch.arange(1, count + 1)[:, None]


def _before(values: Tensor, pictures: int) -> Tensor:
    """The same of the picture before in each row; the first is its own."""
    rows = values.unflatten(0, (values.shape[0] // pictures, pictures))
    return torch.cat((rows[:, :1], rows[:, :-1]), 1).flatten(0, 1)


class Projector(nn.Module):
    """Features to image tokens. The line breaks of Phi-3-vision are put to use: those of the crop say what stands in
    each ninth of the picture and in the whole, those of the small view are `Lists`."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.cell = Look(channels, hidden, CELLS)
        self.ninth = Look(channels, hidden, PLACES)
        self.whole = Look(channels, hidden, GRID - PLACES)
        self.lists = Lists(channels, hidden)
        self.crop_view = nn.Parameter(torch.randn(hidden) * 0.3)
        self.small_view = nn.Parameter(torch.randn(hidden) * 0.3)
        self.separator = nn.Parameter(torch.randn(hidden) * 0.5)

    def forward(self, features: Features, seen: dict[str, Tensor], pictures: int) -> Tensor:
        """Tokens [B, 313, hidden], for pictures of one crop, `pictures` to each row."""
        batch = features.cell.shape[0]
        cells = self.cell(features.cell, pictures)
        ninths = torch.cat((self.ninth(features.place, pictures), self.whole(features.whole, pictures)), 1)
        crop = _with_ends(cells + self.crop_view, ninths)
        small = _with_ends(cells + self.small_view, self.lists(features, seen, self.ninth.place, pictures))
        return torch.cat((crop, self.separator.expand(batch, 1, -1), small), 1)


def _with_ends(cells: Tensor, ends: Tensor) -> Tensor:
    """[B, 144, H] and an end for each row [B, 12, H] -> [B, 156, H]."""
    batch, _, hidden = cells.shape
    rows = cells.view(batch, GRID, GRID, hidden)
    return torch.cat((rows, ends[:, :, None]), 2).reshape(batch, GRID * (GRID + 1), hidden)


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
        self._look_at_lists_first()

    @torch.no_grad()
    def _look_at_lists_first(self) -> None:
        """Starting values by which half of the heads look at the lists and the ninths rather than at all 313 tokens.

        Text has one constant component, those tokens have another; in these heads a slow pair of the rotary embedding
        compares the two. Left to itself attention begins spread over a whole picture, and learns for very long.
        """
        from_text, to_lists = 0, 1
        self.model.embed_tokens.weight[:, [from_text, to_lists]] = torch.tensor([SALIENCE, 0.0])
        projector = self.projector
        for marked in (projector.lists.entry, projector.ninth.place, projector.whole.place):
            marked[:, to_lists] = SALIENCE
        for layer in self.model.layers:
            hidden, heads = layer.self_attn.o_proj.weight.shape[0], layer.self_attn.heads
            q, k = layer.self_attn.qkv_proj.weight[: 2 * hidden].view(2, heads, hidden // heads, hidden)
            slow = hidden // heads // 2 - 1
            for head in range(heads // 2):
                q[head, slow] = 0.0
                k[head, slow] = 0.0
                q[head, slow, from_text] = 1.0
                k[head, slow, to_lists] = 1.0

    def see(self, features: Features) -> dict[str, Tensor]:
        """Logits of what stands where, by the names of SEEN."""
        return {name: head(getattr(features, name.partition("_")[0])) for name, head in self.seen.items()}

    def forward(self, pixels: Tensor, ids: Tensor, positions: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Hidden states [B, T, hidden] and what `see` makes of the pictures.

        pixels [images, 3, 336, 336] in the order in which rows use them; ids [B, T], where −n stands for a token of
        a row's n-th picture.
        """
        features = self.encoder(pixels)
        seen = self.see(features)
        tokens = self.projector(features, seen, len(pixels) // len(ids))
        x = self.model.embed_tokens(ids.clamp(min=0))
        is_image = ids < 0
        x = x.masked_scatter(is_image[..., None], tokens.reshape(-1, tokens.shape[-1]).to(x.dtype))
        x = x + torch.where(is_image[..., None], self.number_embed_tokens((-ids).clamp(min=0)), 0.0)
        return self.model(x, positions, mask), seen

    def quantise(self, on: bool) -> None:
        """Train on int4-rounded weights from here on, or stop doing so."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.quantised = on
