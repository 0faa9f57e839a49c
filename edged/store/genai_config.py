"""What genai_config.json says of a model, as typed facts. Nothing here opens another file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edged.errors import ModelError
from edged.store.folder import read_json_object
from edged.store.genai_keys import CONFIG_FILE, check_keys, words

Kind = Literal["text", "vision-language"]

TEXT_TYPES = words(
    "chatglm decoder ernie4_5 gemma gemma2 gemma3_text gptoss granite hunyuandensev1 internlm2 llama mistral nemotron "
    "olmo phi phimoe phi3 phi3small qwen2 qwen3 smollm3"
)
VISION_TYPES = frozenset({"phi3v"})
PROCESSOR_FILE = "processor_config.json"
MAX_INT = 2**31 - 1


@dataclass(frozen=True, slots=True)
class GenaiConfig:
    """`head_size` and `kv_heads` stand in where the graph leaves a size open. `window_size` 0: no sliding window."""

    kind: Kind
    model_type: str
    context_length: int
    vocab_size: int
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    decoder_file: str
    other_files: tuple[str, ...]
    past_key_names: str
    past_value_names: str
    logits_name: str
    kv_heads: int
    head_size: int
    window_size: int
    window_slack: int
    share_buffer: bool
    processor_file: str = ""


def read_genai_config(folder: Path) -> GenaiConfig:
    """Reads and checks `folder`'s genai_config.json. Raises ModelError, naming the key that is wrong."""
    config = read_json_object(folder, CONFIG_FILE, "every onnxruntime-genai model")
    check_keys(folder, config)
    model = _Section(folder, "model", config)
    decoder = _Section(folder, "decoder", model.values, model.path)
    search = _Section(folder, "search", config, required=False)
    vision = _Section(folder, "vision", model.values, model.path, required=False)
    window = _Section(folder, "sliding_window", decoder.values, decoder.path, required=False)
    inputs = _Section(folder, "inputs", decoder.values, decoder.path, required=False)
    outputs = _Section(folder, "outputs", decoder.values, decoder.path, required=False)
    if window.values and window.flag("slide_key_value_cache", default=True):
        reason = "must be false: a model that slides its inputs is for another kind of pipeline"
        raise ModelError(folder, CONFIG_FILE, f'"{window.path}.slide_key_value_cache" {reason}')
    model_type = model.text("type")
    kind = _kind(folder, model_type)
    attention_heads = decoder.number("num_attention_heads", 1, 65_536)
    pad_id = model.number("pad_token_id", -1, MAX_INT, default=-1)
    return GenaiConfig(
        kind=kind,
        model_type=model_type,
        context_length=model.number("context_length", 1, MAX_INT),
        vocab_size=model.number("vocab_size", 1, MAX_INT),
        bos_id=_optional_id(model.number("bos_token_id", -1, MAX_INT, default=-1)),
        eos_ids=model.ids("eos_token_id") or ((pad_id,) if pad_id >= 0 else ()),
        pad_id=_optional_id(pad_id),
        decoder_file=decoder.text("filename"),
        other_files=_other_files(folder, model, kind),
        past_key_names=inputs.text("past_key_names", "past_key_values.%d.key"),
        past_value_names=inputs.text("past_value_names", "past_key_values.%d.value"),
        logits_name=outputs.text("logits", "logits"),
        kv_heads=decoder.number("num_key_value_heads", 1, 65_536, default=attention_heads),
        head_size=decoder.number("head_size", 1, 65_536),
        window_size=window.number("window_size", -1, MAX_INT, default=0),
        window_slack=max(
            search.number("chunk_size", 0, MAX_INT, default=0) - 1, window.number("cache_slack", 0, MAX_INT, default=0)
        ),
        share_buffer=search.flag("past_present_share_buffer", default=False),
        processor_file="" if kind == "text" else vision.text("config_filename", PROCESSOR_FILE),
    )


def _kind(folder: Path, model_type: str) -> Kind:
    if model_type in TEXT_TYPES:
        return "text"
    if model_type in VISION_TYPES:
        return "vision-language"
    raise ModelError(
        folder, CONFIG_FILE, f'"model.type" is {model_type!r}, which edged does not run; it runs text models and phi3v'
    )


def _other_files(folder: Path, model: _Section, kind: Kind) -> tuple[str, ...]:
    if kind == "text":
        return ()
    vision = _Section(folder, "vision", model.values, model.path)
    embedding = _Section(folder, "embedding", model.values, model.path)
    files = [
        vision.text("filename"),
        embedding.text("filename"),
        vision.text("config_filename", PROCESSOR_FILE),
    ]
    adapter = vision.text("adapter_filename", "")
    return (*files, adapter) if adapter else tuple(files)


def _optional_id(number: int) -> int | None:
    return number if number >= 0 else None


class _Section:
    """One object of the file: typed look-ups that raise ModelError naming the key."""

    def __init__(
        self, folder: Path, name: str, parent: dict[str, Any], path: str = "", *, required: bool = True
    ) -> None:
        self._folder = folder
        self.path = f"{path}.{name}" if path else name
        if required and name not in parent:
            raise self._error("", "is missing")
        found = parent.get(name, {})
        if not isinstance(found, dict):
            raise self._error("", "is not an object")
        self.values: dict[str, Any] = found

    def number(self, key: str, least: int, most: int, *, default: int | None = None) -> int:
        value = self.values.get(key, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._error(
                key, f"must be a whole number from {least} to {most}" if key in self.values else "is missing"
            )
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._error(key, "must be a text" if key in self.values else "is missing")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self._error(key, "must be true or false")
        return value

    def ids(self, key: str) -> tuple[int, ...]:
        value = self.values.get(key, [])
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= MAX_INT for item in ids):
            raise self._error(key, "must be a token id or a list of them")
        return tuple(ids)

    def _error(self, key: str, reason: str) -> ModelError:
        path = f"{self.path}.{key}" if key else self.path
        return ModelError(self._folder, CONFIG_FILE, f'"{path}" {reason}; take the model from its maker again')
