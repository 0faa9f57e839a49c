"""Writes a trained model as a Hugging Face Phi-3 folder and, through onnxruntime-genai's builder, as ONNX."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM

from nano.model import NanoModel
from nano.plan import Shape
from nano.tokenizer import save_tokenizer

CONTEXT_TOKENS = 4096


def phi3(tokenizer: Tokenizer, shape: Shape, weights: dict[str, Tensor]) -> Phi3ForCausalLM:
    """The trained weights in the library's own Phi-3, float32."""
    ends = [tokenizer.token_to_id("<|end|>"), tokenizer.token_to_id("<|endoftext|>")]
    config = Phi3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=CONTEXT_TOKENS,
        original_max_position_embeddings=CONTEXT_TOKENS,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        bos_token_id=tokenizer.token_to_id("<s>"),
        eos_token_id=ends,
        pad_token_id=ends[1],
        tie_word_embeddings=False,
    )
    theirs = Phi3ForCausalLM(config).float()
    theirs.load_state_dict(weights)
    return theirs


def check_same(theirs: Tensor, ours: Tensor) -> None:
    """Raises RuntimeError when the exported model's logits are not those of the trained one."""
    difference = (theirs - ours).abs().max().item()
    if difference > 1e-2:
        raise RuntimeError(f"the exported model differs from the trained one by {difference}")


def to_hugging_face(model: NanoModel, tokenizer: Tokenizer, shape: Shape, folder: Path) -> None:
    """Write config, weights (float32) and tokenizer as Phi3ForCausalLM."""
    theirs = phi3(tokenizer, shape, dict(model.state_dict()))
    ids = torch.arange(3, 60)[None]
    mask = torch.ones(1, 1, 57, 57, dtype=torch.bool).tril()
    model.quantise(False)
    with torch.no_grad():
        check_same(theirs(ids).logits, model.lm_head(model.model(ids, mask)))
    theirs.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def build_onnx(hf_folder: Path, out: Path, precision: str) -> None:
    """Build (int4: blocks of 32, symmetric; fp32) and put the result at `out`."""
    aside = cleared_aside(out)
    run_builder(hf_folder, aside, precision)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(hf_folder / name, aside / name)
    _tidy_config(aside / "genai_config.json")
    take_place(aside, out)


def run_builder(hf_folder: Path, out: Path, precision: str, *options: str) -> None:
    """Run onnxruntime-genai's model builder for the CPU. Raises RuntimeError with its last words when it fails."""
    if precision == "int4":
        options = (*options, "accuracy_level=4", "block_size=32")
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(hf_folder), "-o", str(out)]
        command += ["-p", precision, "-e", "cpu", "-c", cache]
        command += ["--extra_options", *options] if options else []
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the model builder failed:\n{done.stderr[-3000:]}")


def cleared_aside(out: Path) -> Path:
    """The place beside `out` where its successor is made; what an earlier try left there is gone."""
    aside = out.parent / f".{out.name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    return aside


def take_place(aside: Path, out: Path) -> None:
    """Put a finished model folder where the older one is, whose card and golden prompts are kept."""
    for kept in ("README.md", "golden.json"):
        if (out / kept).exists():
            shutil.copyfile(out / kept, aside / kept)
    old = out.parent / f".{out.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(aside, out)
    shutil.rmtree(old, ignore_errors=True)


def _tidy_config(path: Path) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["search"]["do_sample"] = False
    path.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
