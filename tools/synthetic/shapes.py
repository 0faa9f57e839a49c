"""The shapes that can be made: those of public models (source: each one's config.json), and small ones for tests."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class LongRope:
    """Two rotary tables: the short one up to `original_context` tokens, the long one beyond."""

    original_context: int


@dataclass(frozen=True)
class Shape:
    """A decoder of the Phi-3 or Llama family; both have the same graph. `head` "pruned": logits of the last token only.

    `sliding_window` is copied into genai_config.json as the model builder does; the graph has no window.
    """

    name: str
    model_type: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int
    rms_epsilon: float
    rope_theta: float = 10_000.0
    long_rope: LongRope | None = None
    sliding_window: int | None = None
    block_size: int = 32
    pruned_head: bool = False

    @property
    def kv_bytes_per_token(self) -> int:
        """float32 keys and values of all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * 4

    @property
    def qkv_width(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


_PHI35 = Shape(
    name="phi3.5-mini",
    model_type="phi3",
    layers=32,
    hidden=3072,
    heads=32,
    kv_heads=32,
    head_dim=96,
    intermediate=8192,
    vocab=32064,
    context=131_072,
    rms_epsilon=1e-5,
    long_rope=LongRope(original_context=4096),
    sliding_window=262_144,
)
_TINY = Shape(
    name="tiny",
    model_type="phi3",
    layers=2,
    hidden=128,
    heads=4,
    kv_heads=4,
    head_dim=32,
    intermediate=256,
    vocab=2048,
    context=4096,
    rms_epsilon=1e-5,
)


SHAPES = {
    shape.name: shape
    for shape in (
        _PHI35,
        replace(_PHI35, name="phi3.5-mini-2l", layers=2),
        Shape(
            name="tinyllama-1.1b",
            model_type="llama",
            layers=22,
            hidden=2048,
            heads=32,
            kv_heads=4,
            head_dim=64,
            intermediate=5632,
            vocab=32_000,
            context=2048,
            rms_epsilon=1e-5,
        ),
        _TINY,
        replace(_TINY, name="tiny-gqa", kv_heads=2, model_type="llama"),
        replace(
            _TINY, name="tiny-longrope", context=1024, long_rope=LongRope(original_context=256), sliding_window=262_144
        ),
    )
}
