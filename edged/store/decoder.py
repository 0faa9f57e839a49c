"""What a decoder's graph says of itself: the shape of its KV cache, and the context its rotary tables allow."""

from __future__ import annotations

from pathlib import Path

from edged.errors import ModelError
from edged.store.genai_config import GenaiConfig
from edged.store.graph import Graph, Node, TensorInfo
from edged.store.graph_types import DTYPE_BITS
from edged.store.kv import KvShape

LONGROPE_TYPES = frozenset({"phi3", "phi3small", "phi3v", "phimoe"})
LONGROPE_LIMIT = 4096  # what all published LongRoPE models of these types were first trained on
LONGEST_WITHOUT_LONGROPE = 16_384  # Phi-4: 16k with one plain table
CPU_WINDOW_SLACK = 16  # onnxruntime-genai keeps these above the window on CPU

MAX_LAYERS = 1_024


def read_kv_shape(folder: Path, config: GenaiConfig, graph: Graph) -> KvShape:
    """Layers, heads, width and dtype from the graph's KV inputs; what the graph leaves open comes from `config`.

    Raises ModelError when there are no KV inputs, when they differ in more than their window, or when the graph keeps
    state of another kind, whose memory edged could not account for.
    """
    keys, values = _kv_inputs(config.past_key_names, graph), _kv_inputs(config.past_value_names, graph)
    file = config.decoder_file
    if not keys or keys.keys() != values.keys() or len(keys) > MAX_LAYERS:
        raise ModelError(
            folder,
            file,
            f"has {len(keys)} key and {len(values)} value inputs for its KV cache; this is no such decoder",
        )
    tensors = [*keys.values(), *values.values()]
    known = {tensor.name for tensor in tensors}
    for tensor in graph.inputs:
        if tensor.name.startswith("past") and tensor.name not in known and not tensor.name.endswith("length"):
            raise ModelError(folder, file, f"keeps the state {tensor.name[:80]!r}, which edged cannot account for")
    shapes = {_stored_shape(folder, config, tensor) for tensor in tensors}
    if len(shapes) != 1:
        raise ModelError(folder, file, "has layers with KV caches of different shapes, which edged does not run")
    kv_heads, head_dim, dtype_bytes = shapes.pop()
    windowed = sum(_is_windowed(tensor) for tensor in keys.values()) if config.window_size > 0 else 0
    return KvShape(
        layers=len(keys),
        kv_heads=kv_heads,
        head_dim=head_dim,
        dtype_bytes=dtype_bytes,
        windowed_layers=windowed,
        window_tokens=config.window_size + max(config.window_slack, CPU_WINDOW_SLACK) if windowed else 0,
    )


def read_rope_limit(config: GenaiConfig, graph: Graph) -> int | None:
    """The context up to which the short rotary table of a LongRoPE model is used; None for a model with one table.

    Such a model chooses the table by the length reached so far, so a cache begun with the short one is wrong as soon as
    the long one is chosen. The model builder writes the choice as an `If` node over two tables (CPU, CUDA) or as a
    shift of the positions into one joined table (others).
    """
    for node in graph.nodes:
        limits = _table_lengths(node)
        if len(limits) > 1:
            return min(limits)
        if node.op_type == "GreaterOrEqual" and "pos_ids_reformat" in node.name:
            tail = node.inputs[-1].rpartition("/")[2] if node.inputs else ""
            return int(tail) if tail.isascii() and tail.isdigit() and 0 < len(tail) < 10 else LONGROPE_LIMIT
    if config.model_type in LONGROPE_TYPES and config.context_length > LONGEST_WITHOUT_LONGROPE:
        return LONGROPE_LIMIT
    return None


def has_inert_window(config: GenaiConfig, kv: KvShape) -> bool:
    """Whether genai_config.json asks for a sliding window that the graph does not have.

    onnxruntime-genai 0.18 then makes the cache as small as the window and the graph fails beyond it (measured on
    Phi-3-mini-4k's own configuration, window 2047: the prompt of 2,100 tokens raises).
    """
    return 0 < config.window_size < config.context_length and kv.windowed_layers == 0


def _kv_inputs(template: str, graph: Graph) -> dict[str, TensorInfo]:
    """Layer number → input, for names that fit `template` (`past_key_values.%d.key`)."""
    prefix, found, suffix = template.partition("%d")
    if not found:
        return {}
    inputs = {}
    for tensor in graph.inputs:
        number = tensor.name.removeprefix(prefix).removesuffix(suffix)
        if tensor.name == f"{prefix}{number}{suffix}" and number.isascii() and number.isdigit():
            inputs[number] = tensor
    return inputs


def _stored_shape(folder: Path, config: GenaiConfig, tensor: TensorInfo) -> tuple[int, int, int]:
    """(kv_heads, stored head_dim, bytes of one element) of one input `[batch, kv_heads, tokens, head_dim]`."""
    bits = DTYPE_BITS.get(tensor.dtype, 0)
    if len(tensor.dims) != 4 or bits % 8 or not bits:
        raise ModelError(
            folder,
            config.decoder_file,
            f"has the KV input {tensor.name[:80]!r} as {tensor.dtype} {tensor.dims}; refused",
        )
    packed = 2 if tensor.dtype == "uint8" else 1  # two int4 values in a byte
    heads, width = tensor.dims[1], tensor.dims[3]
    kv_heads = heads if isinstance(heads, int) else config.kv_heads
    head_dim = width if isinstance(width, int) else (config.head_size + packed - 1) // packed
    if not (0 < kv_heads <= 65_536 and 0 < head_dim <= 65_536):
        raise ModelError(folder, config.decoder_file, f"has a KV cache of {kv_heads} heads of {head_dim}: refused")
    return kv_heads, head_dim, bits // 8


def _is_windowed(tensor: TensorInfo) -> bool:
    """The model builder names the length of a sliding-window layer's cache `past_sliding_length`."""
    length = tensor.dims[2]
    return isinstance(length, str) and "sliding" in length


def _table_lengths(node: Node) -> set[int]:
    """Row counts of the cosine tables that an `If` chooses between."""
    if node.op_type != "If" or not any("cos" in output for output in node.outputs):
        return set()
    tables = [branch[0] for branch in node.branches if branch]
    return {table.dims[0] for table in tables if table.dims and isinstance(table.dims[0], int) and table.dims[0] > 0}
