#!/usr/bin/env python3
"""Records the graphs that onnxruntime-genai's model builder writes for small shapes, for a test to compare with.

Run it where torch, transformers and onnxruntime-genai are installed, after a new version of the builder:

    python tools/record_builder_graph.py tests/data/builder_graph_phi3.json

Exit codes: 0 recorded, 1 the builder failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from synthetic.rope import long_rope_factors
from synthetic.shapes import SHAPES, LongRope, Shape
from synthetic.summary import summarize
from synthetic.tokenizer import CHAT_TEMPLATE, tokenizer, tokenizer_config

# The builder takes any linear layer as wide as the vocabulary for the head: 640 is the width of nothing else here.
_PLAIN = replace(SHAPES["tiny"], name="plain", vocab=640, context=512)
_LONG = replace(_PLAIN, name="longrope", context=1024, long_rope=LongRope(256), sliding_window=262_144)
CASES = (
    _PLAIN,
    _LONG,
    replace(_LONG, name="longrope-pruned", pruned_head=True),
    replace(_PLAIN, name="llama-gqa-b128", model_type="llama", kv_heads=2, block_size=128, pruned_head=True),
)
BUILDER_LIMIT_S = 300


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the JSON file to write")
    args = parser.parse_args(argv)
    os.environ.update(ORT_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1")
    cases = {}
    for shape in CASES:
        print(f"{shape.name} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                cases[shape.name] = {"shape": asdict(shape), **_record(shape, Path(scratch))}
            except subprocess.SubprocessError as error:
                print(f"record_builder_graph.py: the builder failed on {shape.name}: {error}", file=sys.stderr)
                print(str(getattr(error, "stderr", ""))[-2000:], file=sys.stderr)
                return 1
    made_by = {name: version(name) for name in ("onnxruntime-genai", "torch", "transformers", "onnx")}
    args.out.write_text(_readable({"made_by": made_by, "cases": cases}) + "\n", encoding="utf-8")
    print(f"{args.out}: {len(cases)} graphs")
    return 0


def _record(shape: Shape, scratch: Path) -> dict[str, Any]:
    source, out = scratch / "hf", scratch / "onnx"
    _save_random_model(shape, source)
    options = ["accuracy_level=4", f"block_size={shape.block_size}"]
    options += ["prune_lm_head=true"] if shape.pruned_head else []
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(out)]
    command += ["-p", "int4", "-e", "cpu", "-c", str(scratch / "cache"), "--extra_options", *options]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILDER_LIMIT_S)
    return {
        "graph": summarize(onnx.load(out / "model.onnx", load_external_data=False)),
        "genai_config": json.loads((out / "genai_config.json").read_text(encoding="utf-8")),
    }


def _save_random_model(shape: Shape, folder: Path) -> None:
    """A Hugging Face folder with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    common: dict[str, Any] = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.rms_epsilon,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    if shape.model_type == "llama":
        LlamaForCausalLM(LlamaConfig(**common, head_dim=shape.head_dim)).save_pretrained(folder)
    else:
        original = shape.long_rope.original_context if shape.long_rope else shape.context
        common |= {"original_max_position_embeddings": original, "sliding_window": shape.sliding_window}
        if shape.long_rope:
            short, long = (factors.tolist() for factors in long_rope_factors(shape, shape.long_rope))
            kind = {"type": "longrope", "rope_type": "longrope"}
            common["rope_scaling"] = {**kind, "short_factor": short, "long_factor": long}
        Phi3ForCausalLM(Phi3Config(**common)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(shape.vocab)), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(shape.context)), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _readable(value: Any, depth: int = 0) -> str:
    """JSON with a line for each node, so that a new version of the builder shows as a short diff."""
    if depth >= 5 or not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    pad = " " * (depth + 1)
    if isinstance(value, list):
        return "[\n" + ",\n".join(pad + _readable(item, 9) for item in value) + "\n" + " " * depth + "]"
    items = (f"{pad}{json.dumps(key)}: {_readable(item, depth + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(items) + "\n" + " " * depth + "}"


if __name__ == "__main__":
    sys.exit(main())
