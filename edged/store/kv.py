"""How many bytes a model's KV cache takes: arithmetic on numbers, no I/O."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KvShape:
    """One key and one value tensor `[1, kv_heads, tokens, head_dim]` for each of `layers` layers.

    With the shared buffer onnxruntime-genai 0.18 allocates and zeroes exactly
    `2 · layers · kv_heads · head_dim · dtype_bytes · max_length` when a generator is made (measured; docs/adr/0002);
    `windowed_layers` of the layers hold at most `window_tokens` (sliding-window attention).
    `head_dim` is the stored width: for packed int4 half of the head's size, in bytes.
    """

    layers: int
    kv_heads: int
    head_dim: int
    dtype_bytes: int
    windowed_layers: int = 0
    window_tokens: int = 0

    @property
    def layer_bytes_per_token(self) -> int:
        return 2 * self.kv_heads * self.head_dim * self.dtype_bytes

    @property
    def bytes_per_token(self) -> int:
        """What one more token costs while every layer still grows: inside the window, if there is one."""
        return self.layers * self.layer_bytes_per_token

    def bytes_for(self, tokens: int) -> int:
        """Bytes of a cache made for `tokens` (prompt and answer together, ≥ 0)."""
        windowed_tokens = min(tokens, self.window_tokens) if self.windowed_layers else 0
        full_layers = self.layers - self.windowed_layers
        return self.layer_bytes_per_token * (full_layers * tokens + self.windowed_layers * windowed_tokens)

    def tokens_in(self, kv_bytes: int) -> int:
        """The most tokens whose cache fits in `kv_bytes`, if no layer is windowed; never too many if some are."""
        return max(0, kv_bytes) // self.bytes_per_token
