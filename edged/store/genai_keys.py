"""The keys of genai_config.json that edged lets through to onnxruntime-genai, section by section.

An allow-list, since the library acts on keys that load code (`custom_ops_library`), write files (`enable_profiling`)
or read outside the folder. Source of the key names: onnxruntime-genai 0.18, src/config.cpp.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edged.errors import ModelError

CONFIG_FILE = "genai_config.json"
MAX_TEXT_CHARS = 256
MAX_NUMBERS = 4096


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SESSION = words(
    "log_id intra_op_num_threads inter_op_num_threads log_severity_level log_verbosity_level enable_cpu_mem_arena "
    "enable_mem_pattern graph_optimization_level provider_options session.disable_cpu_ep_fallback "
    "session.use_device_allocator_for_initializers session.set_denormal_as_zero session.intra_op.allow_spinning "
    "session.inter_op.allow_spinning session.dynamic_block_base session.qdq_matmulnbits_accuracy_level "
    "optimization.disable_specified_optimizers ep.cuda.fpa_intb_gemm"
)
_RUN = frozenset({"memory.enable_memory_arena_shrinkage"})
_PROVIDER = words(
    "enable_cuda_graph enable_skip_layer_norm_strict_mode enable_graph_capture enableGraphCapture validationMode "
    "nv_multi_profile_enable device_type"
)
_WINDOW = words("window_size pad_value alignment slide_key_value_cache slide_inputs layers cache_slack")
_ENDS = {"session_options": _SESSION, "run_options": _RUN, "inputs": None, "outputs": None}

# A section is a set of plain keys, or a dict of the sections inside it; None lets any key with a plain text through.
_SECTIONS: dict[str, Any] = {
    "model": {
        "": words(
            "type vocab_size context_length pad_token_id eos_token_id bos_token_id sep_token_id decoder_start_token_id "
            "image_token_id bot_token_id eot_token_id bor_token_id eor_token_id"
        ),
        "decoder": {
            "": words(
                "filename hidden_size num_attention_heads num_hidden_layers num_key_value_heads head_size layer_types"
            ),
            "sliding_window": _WINDOW,
            **_ENDS,
        },
        "vision": {
            "": words(
                "filename config_filename adapter_filename spatial_merge_size tokens_per_second patch_size "
                "num_visual_tokens window_size"
            ),
            **_ENDS,
        },
        "embedding": {"": frozenset({"filename"}), **_ENDS},
    },
    "search": words(
        "min_length max_length batch_size num_beams num_return_sequences top_k top_p temperature repetition_penalty "
        "length_penalty no_repeat_ngram_size diversity_penalty random_seed chunk_size do_sample "
        "past_present_share_buffer early_stopping"
    ),
}


def check_keys(folder: Path, config: dict[str, Any]) -> None:
    """Raises ModelError, naming the key, at the first one that is not on the list or holds what it should not."""
    _check_section(folder, "", config, {"": frozenset(), **_SECTIONS})


def _check_section(folder: Path, path: str, section: object, allowed: Any) -> None:
    if not isinstance(section, dict):
        raise _refusal(folder, path, "is not an object")
    for key, value in section.items():
        where = f"{path}.{key}" if path else key
        plain = allowed if not isinstance(allowed, dict) else allowed.get("", frozenset())
        if isinstance(allowed, dict) and key in allowed and key:
            _check_section(folder, where, value, allowed[key])
        elif plain is not None and key not in plain:
            raise _refusal(folder, where, "is not a key that edged lets through")
        elif key == "provider_options":
            _check_providers(folder, where, value)
        else:
            _check_value(folder, where, value)


def _check_providers(folder: Path, path: str, providers: object) -> None:
    if not isinstance(providers, list) or len(providers) > 8:
        raise _refusal(folder, path, "is not a short list")
    for provider in providers:
        if not isinstance(provider, dict) or len(provider) != 1:
            raise _refusal(folder, path, "holds something other than {provider: options}")
        for name, options in provider.items():
            _check_section(folder, f"{path}.{name}", options, _PROVIDER)


def _check_value(folder: Path, path: str, value: object) -> None:
    """Numbers, booleans, short texts and lists of numbers or short texts. `%` only as one `%d`: names are formats."""
    if isinstance(value, list):
        if len(value) > MAX_NUMBERS or any(isinstance(item, dict | list) for item in value):
            raise _refusal(folder, path, "is not a list of plain values")
        for item in value:
            _check_value(folder, path, item)
    elif isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS or not value.isprintable():
            raise _refusal(folder, path, f"is longer than {MAX_TEXT_CHARS} characters or not printable")
        if "%" in value.replace("%d", "", 1):
            raise _refusal(folder, path, "holds a % other than one %d")
    elif value is None or isinstance(value, dict):
        raise _refusal(folder, path, "is not a plain value")


def _refusal(folder: Path, path: str, reason: str) -> ModelError:
    return ModelError(
        folder, CONFIG_FILE, f'"{path[:120]}" {reason}; remove it, or take the model from its maker again'
    )
