"""The content of genai_config.json, as the model builder writes it for CPU."""

from __future__ import annotations

from typing import Any

from synthetic.shapes import Shape
from synthetic.tokenizer import special_ids


def genai_config(shape: Shape) -> dict[str, Any]:
    specials = special_ids(shape.vocab)
    decoder: dict[str, Any] = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": shape.head_dim,
        "hidden_size": shape.hidden,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
    }
    if shape.sliding_window is not None:
        decoder["sliding_window"] = {
            "window_size": shape.sliding_window,
            "slide_key_value_cache": False,
            "slide_inputs": False,
            "layers": [],
            "cache_slack": 0,
        }
    return {
        "model": {
            "bos_token_id": 1,
            "context_length": shape.context,
            "decoder": decoder,
            "eos_token_id": [specials["<|end|>"], specials["<|endoftext|>"]],
            "pad_token_id": specials["<|endoftext|>"],
            "type": shape.model_type,
            "vocab_size": shape.vocab,
        },
        "search": {
            "diversity_penalty": 0.0,
            "do_sample": False,
            "early_stopping": True,
            "length_penalty": 1.0,
            "max_length": shape.context,
            "min_length": 0,
            "no_repeat_ngram_size": 0,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": True,
            "repetition_penalty": 1.0,
            "temperature": 1.0,
            "top_k": 50,
            "top_p": 1.0,
        },
    }
