"""The decoder's graph: the operators, names and order that onnxruntime-genai's model builder writes for Phi-3 on CPU.

tests/data/builder_graph_phi3.json holds the builder's own output for small shapes; a test compares node for node.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from synthetic.rope import long_rope_tables, plain_tables
from synthetic.shapes import Shape
from synthetic.weights import WeightFile

MS = "com.microsoft"
MASK = "/model/attn_mask_reformat/attn_mask_subgraph"
LOGITS_STD = 3.0  # about as peaked as a trained model's


def decoder(shape: Shape, weights: WeightFile, silent_rows: range) -> onnx.ModelProto:
    """The whole model; its weights are written to `weights` on the way, in the builder's order.

    `silent_rows` of the vocabulary get logits of 0, so that they are never the greedy choice.
    """
    build = _Decoder(shape, weights)
    build.norms_and_embedding()
    build.mask_and_rope()
    for layer in range(shape.layers):
        build.layer(layer)
    build.head(silent_rows)
    graph = helper.make_graph(build.nodes, "main_graph", _inputs(shape), _outputs(shape), build.tensors)
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="edged make_synthetic")


class _Decoder:
    """Owns the nodes and tensors made so far; `_residual` and `_normed` name what the next layer starts from."""

    def __init__(self, shape: Shape, weights: WeightFile) -> None:
        self._shape = shape
        self._weights = weights
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._residual = "/model/embed_tokens/Gather/output_0"
        self._normed = "/model/layers.0/input_layernorm/output_0"

    def norms_and_embedding(self) -> None:
        shape, layers = self._shape, self._shape.layers
        self.tensors.append(self._weights.normal("model.embed_tokens.weight", (shape.vocab, shape.hidden), 1.0))
        self._norm_weight("model.layers.0.input_layernorm.weight")
        if shape.long_rope is None:
            for name, table in zip(("cos_cache", "sin_cache"), plain_tables(shape), strict=True):
                self.tensors.append(self._weights.array(name, table))
        self._norm_weight("model.layers.0.post_attention_layernorm.weight")
        for layer in range(1, layers):
            self._norm_weight(f"model.layers.{layer}.input_layernorm.weight")
            self._norm_weight(f"model.layers.{layer}.post_attention_layernorm.weight")
        self._norm_weight(f"model.layers.{layers}.final_norm_layernorm.weight")

    def mask_and_rope(self) -> None:
        """Lengths for the attention operator from the mask, the rotary tables, the embedding and the first norm."""
        shape = self._shape
        if shape.long_rope is not None:
            limit = str(shape.long_rope.original_context)
            self._int64(limit)
            self._mask_length()
            self._node("Greater", "/model/rope_caches_subgraph/Greater", [f"{MASK}/Gather/output_0", _constant(limit)])
            self._rope_choice()
        self._int64("[1]")
        self._node("ReduceSum", f"{MASK}/ReduceSum", ["attention_mask", _constant("[1]")], keepdims=0)
        self._node("Sub", f"{MASK}/Sub", [f"{MASK}/ReduceSum/output_0", _constant("[1]")])
        self._node("Cast", f"{MASK}/Sub/Cast", [f"{MASK}/Sub/output_0"], to=TensorProto.INT32)
        if shape.long_rope is None:
            self._mask_length()
        self._node("Cast", f"{MASK}/Gather/Cast", [f"{MASK}/Gather/output_0"], to=TensorProto.INT32)
        self._node("Gather", "/model/embed_tokens/Gather", ["model.embed_tokens.weight", "input_ids"])
        self._node(
            "SimplifiedLayerNormalization",
            "/model/layers.0/input_layernorm/LayerNorm",
            [self._residual, "model.layers.0.input_layernorm.weight"],
            [self._normed],
            epsilon=shape.rms_epsilon,
            axis=-1,
            stash_type=1,
        )

    def layer(self, layer: int) -> None:
        shape = self._shape
        path = f"/model/layers.{layer}"
        if layer:
            self._skip_norm(f"{path}/input_layernorm")
        qkv = self._matmul(f"{path}/attn/qkv_proj", self._normed, shape.hidden, shape.qkv_width)
        attention = f"{path}/attn/GroupQueryAttention"
        past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        lengths = [f"{MASK}/Sub/Cast/output_0", f"{MASK}/Gather/Cast/output_0"]
        self._node(
            "GroupQueryAttention",
            attention,
            [qkv, "", "", *past, *lengths, "cos_cache", "sin_cache", "", "", ""],
            [f"{attention}/output_0", f"present.{layer}.key", f"present.{layer}.value"],
            domain=MS,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            scale=shape.head_dim**-0.5,
            local_window_size=-1,
            softcap=0.0,
            do_rotary=1,
            rotary_interleaved=0,
        )
        self._added = self._matmul(
            f"{path}/attn/o_proj", f"{attention}/output_0", shape.heads * shape.head_dim, shape.hidden
        )
        self._skip_norm(f"{path}/post_attention_layernorm")
        gate = self._matmul(f"{path}/mlp/gate_proj", self._normed, shape.hidden, shape.intermediate)
        up = self._matmul(f"{path}/mlp/up_proj", self._normed, shape.hidden, shape.intermediate)
        self._node("Sigmoid", f"{path}/mlp/act_fn/Sigmoid", [gate])
        self._node("Mul", f"{path}/mlp/act_fn/Mul", [gate, f"{path}/mlp/act_fn/Sigmoid/output_0"])
        self._node("Mul", f"{path}/mlp/Mul", [f"{path}/mlp/act_fn/Mul/output_0", up])
        self._added = self._matmul(
            f"{path}/mlp/down_proj", f"{path}/mlp/Mul/output_0", shape.intermediate, shape.hidden
        )

    def head(self, silent_rows: range) -> None:
        shape = self._shape
        self._skip_norm(f"/model/layers.{shape.layers}/final_norm_layernorm", is_last=True)
        if shape.pruned_head:
            self._int64("-1")
            self._node("Gather", "/lm_head/prune/Gather", [self._normed, _constant("-1")], axis=1)
            self._node("Unsqueeze", "/lm_head/prune/Unsqueeze", ["/lm_head/prune/Gather/output_0", _constant("[1]")])
            self._normed = "/lm_head/prune/Unsqueeze/output_0"
        self._matmul("/lm_head", self._normed, shape.hidden, shape.vocab, "logits", LOGITS_STD, silent_rows)

    def _norm_weight(self, name: str) -> None:
        self.tensors.append(self._weights.array(name, np.ones(self._shape.hidden, dtype=np.float32)))

    def _skip_norm(self, path: str, *, is_last: bool = False) -> None:
        """Residual + what the last block added, and its norm."""
        outputs = [f"{path}/output_0"] if is_last else [f"{path}/output_0", "", "", f"{path}/output_3"]
        weight = path.removeprefix("/").replace("/", ".") + ".weight"
        self._node(
            "SkipSimplifiedLayerNormalization",
            f"{path}/SkipLayerNorm",
            [self._residual, self._added, weight],
            outputs,
            domain=MS,
            epsilon=self._shape.rms_epsilon,
        )
        self._normed, self._residual = outputs[0], outputs[-1]

    def _matmul(
        self,
        path: str,
        source: str,
        k: int,
        n: int,
        output: str = "",
        output_std: float = 1.0,
        silent_rows: range = range(0),
    ) -> str:
        """int4 MatMulNBits; its weights keep a normed input's standard deviation at `output_std`."""
        block = self._shape.block_size
        name = f"{path.removeprefix('/').replace('/', '.')}.MatMul"
        blocks = -(-k // block)
        self.tensors.append(self._weights.int4(f"{name}.weight_Q4", (n, blocks, block // 2)))
        std = output_std / k**0.5
        self.tensors.append(self._weights.scales(f"{name}.weight_scales", (n, blocks), std, silent_rows))
        result = output or f"{path}/MatMul/output_0"
        self._node(
            "MatMulNBits",
            f"{path}/MatMul_Q4",
            [source, f"{name}.weight_Q4", f"{name}.weight_scales"],
            [result],
            domain=MS,
            K=k,
            N=n,
            accuracy_level=4,
            bits=4,
            block_size=block,
        )
        return result

    def _rope_choice(self) -> None:
        """The `If` that takes the long tables once the mask is longer than the original context."""
        shape = self._shape
        assert shape.long_rope is not None
        short, long = long_rope_tables(shape, shape.long_rope)
        self._node(
            "If",
            "/model/rope_caches_subgraph/If",
            ["/model/rope_caches_subgraph/Greater/output_0"],
            ["cos_cache", "sin_cache"],
            then_branch=_table_graph("large", long),
            else_branch=_table_graph("small", short),
        )

    def _mask_length(self) -> None:
        self._node("Shape", f"{MASK}/Shape", ["attention_mask"])
        self._int64("1")
        self._node("Gather", f"{MASK}/Gather", [f"{MASK}/Shape/output_0", _constant("1")], axis=0)

    def _int64(self, text: str) -> None:
        """A constant the way the builder names it: `4096` a scalar, `[1]` a list of one."""
        is_list = text.startswith("[")
        value = np.array(int(text.strip("[]")), dtype=np.int64)
        tensor = onnx.numpy_helper.from_array(value.reshape(1) if is_list else value)
        self._node("Constant", f"/model/constant_nodes/INT64/{text}", [], [_constant(text)], value=tensor)

    def _node(
        self,
        op_type: str,
        name: str,
        inputs: list[str],
        outputs: list[str] | None = None,
        domain: str = "",
        **attributes: object,
    ) -> None:
        node = helper.make_node(op_type, inputs, outputs or [f"{name}/output_0"], name=name, domain=domain)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)


def _constant(text: str) -> str:
    return f"/model/constants/INT64/{text}"


def _table_graph(size: str, tables: tuple[np.ndarray, np.ndarray]) -> onnx.GraphProto:
    nodes, outputs = [], []
    for name, table in zip(("cos_cache", "sin_cache"), tables, strict=True):
        tensor = onnx.numpy_helper.from_array(table)
        nodes.append(
            helper.make_node("Constant", [], [f"{name}_{size}"], name=f"/{size}/{name}/Constant", value=tensor)
        )
        outputs.append(helper.make_tensor_value_info(f"{name}_{size}", TensorProto.FLOAT, table.shape))
    return helper.make_graph(nodes, f"{size}_rope_caches_graph", [], outputs)


def _inputs(shape: Shape) -> list[onnx.ValueInfoProto]:
    return [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"]),
        *_kv(shape, "past_key_values", "past_sequence_length"),
    ]


def _outputs(shape: Shape) -> list[onnx.ValueInfoProto]:
    logits: list[str | int] = ["batch_size", 1 if shape.pruned_head else "sequence_length", shape.vocab]
    return [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits),
        *_kv(shape, "present", "total_sequence_length"),
    ]


def _kv(shape: Shape, prefix: str, length: str) -> list[onnx.ValueInfoProto]:
    """All keys, then all values, as the builder orders them; it leaves the width open for quantised caches."""
    dims: list[str | int] = ["batch_size", shape.kv_heads, length, "kv_cache_dim"]
    return [
        helper.make_tensor_value_info(f"{prefix}.{layer}.{part}", TensorProto.FLOAT, dims)
        for part in ("key", "value")
        for layer in range(shape.layers)
    ]
