"""A model folder checked and described: whole or refused, before anything native opens it; loads no weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edged.errors import ModelError
from edged.store.decoder import has_inert_window, read_kv_shape, read_rope_limit
from edged.store.external import data_files
from edged.store.folder import check_text_ends, file_size, list_files, read_json_object, unreadable
from edged.store.genai_config import Kind, read_genai_config
from edged.store.genai_keys import CONFIG_FILE
from edged.store.graph import Graph, read_graph
from edged.store.kv import KvShape
from edged.store.plain_manifest import MANIFEST_FILE as PLAIN_MANIFEST
from edged.store.processor import read_most_crops


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """What edged knows of a model before it loads it.

    `context_length` is the model's own claim; plan with `max_tokens`. `kv` comes from the decoder's graph.
    `rope_limit`: beyond it a LongRoPE model answers wrongly without an error.
    `sliding_window`: tokens that the windowed layers remember, None when there are none; past it no rewind is possible.
    `inert_window`: the configuration asks for a window that the graph does not have, so no cache may grow past it.
    `full_logits`: the graph gives logits for every token of a step, not only for the last one.
    `most_crops`: into how many squares it looks at a picture at most; 0: it takes no pictures.
    `weights_bytes`: the graphs and their data files; `packed_bytes` of them are int4 weights, which the CPU
    provider copies into a layout of its own on the heap. `decoder_file` and `files` are relative to `folder`.
    """

    folder: Path
    kind: Kind
    model_type: str
    decoder_file: str
    context_length: int
    rope_limit: int | None
    sliding_window: int | None
    inert_window: int | None
    vocab_size: int
    bos_id: int | None
    eos_ids: tuple[int, ...]
    pad_id: int | None
    kv: KvShape
    share_buffer: bool
    full_logits: bool
    weights_bytes: int
    packed_bytes: int
    has_chat_template: bool
    files: tuple[str, ...]
    most_crops: int = 0

    @property
    def kv_bytes_per_token(self) -> int:
        return self.kv.bytes_per_token

    @property
    def max_tokens(self) -> int:
        """The most tokens, prompt and answer together, that this model answers rightly."""
        limits = (self.context_length, self.rope_limit, self.inert_window)
        return min(limit for limit in limits if limit is not None)


def read_manifest(folder: Path) -> ModelManifest:
    """Checks the whole folder and describes it. Raises ModelError: which file, what is wrong, what to do."""
    _check_folder(folder)
    files = list_files(folder)
    config = read_genai_config(folder)
    graphs = {file: _whole_graph(folder, file) for file in _graph_files(config.decoder_file, config.other_files)}
    for file in config.other_files:
        file_size(folder, file, CONFIG_FILE)
    check_text_ends(folder, "tokenizer.json", "every text model")
    tokenizer_config = read_json_object(folder, "tokenizer_config.json", "every text model")
    decoder, _ = graphs[config.decoder_file]
    kv = read_kv_shape(folder, config, decoder)
    inert = has_inert_window(config, kv)
    return ModelManifest(
        folder=folder,
        kind=config.kind,
        model_type=config.model_type,
        decoder_file=config.decoder_file,
        context_length=config.context_length,
        rope_limit=read_rope_limit(config, decoder),
        sliding_window=config.window_size if kv.windowed_layers else None,
        inert_window=config.window_size if inert else None,
        vocab_size=config.vocab_size,
        bos_id=config.bos_id,
        eos_ids=config.eos_ids,
        pad_id=config.pad_id,
        kv=kv,
        share_buffer=config.share_buffer,
        full_logits=_has_full_logits(folder, config.decoder_file, config.logits_name, decoder),
        weights_bytes=_weights_bytes(folder, {file: names for file, (_, names) in graphs.items()}),
        packed_bytes=sum(_packed_bytes(graph) for graph, _ in graphs.values()),
        has_chat_template="chat_template.jinja" in files or bool(tokenizer_config.get("chat_template")),
        files=files,
        most_crops=read_most_crops(folder, config.processor_file) if config.processor_file else 0,
    )


def _check_folder(folder: Path) -> None:
    try:
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise ModelError(folder, "", f"{what}; give the folder that holds {CONFIG_FILE}")
        has_config, has_plain = (folder / CONFIG_FILE).exists(), (folder / PLAIN_MANIFEST).exists()
    except OSError as error:
        raise unreadable(folder, "", error) from error
    if not has_config and has_plain:
        raise ModelError(folder, PLAIN_MANIFEST, "describes a plain ONNX model; it has no prompt and no context")
    if not has_config:
        raise ModelError(folder, CONFIG_FILE, "is missing: this is no onnxruntime-genai model, or half of one")


def _graph_files(decoder_file: str, other_files: tuple[str, ...]) -> tuple[str, ...]:
    return (decoder_file, *(file for file in other_files if file.endswith(".onnx")))


def _whole_graph(folder: Path, file: str) -> tuple[Graph, frozenset[str]]:
    """The graph, and the data files it needs, each long enough for the weights said to lie in it."""
    file_size(folder, file, CONFIG_FILE)
    graph = read_graph(folder, file)
    return graph, data_files(folder, file, graph)


def _has_full_logits(folder: Path, file: str, logits_name: str, graph: Graph) -> bool:
    logits = next((tensor for tensor in graph.outputs if tensor.name == logits_name), None)
    if logits is None:
        raise ModelError(folder, file, f"has no output {logits_name[:80]!r}; this is no decoder")
    return len(logits.dims) == 3 and logits.dims[1] != 1


def _packed_bytes(graph: Graph) -> int:
    """Bytes of external weights that a MatMulNBits node takes (packed int4, scales, zero points)."""
    taken = {name for node in graph.nodes if node.op_type == "MatMulNBits" for name in node.inputs[1:]}
    return sum(tensor.length for tensor in graph.external if tensor.name in taken)


def _weights_bytes(folder: Path, data_files: dict[str, frozenset[str]]) -> int:
    names = set(data_files).union(*data_files.values())
    return sum(file_size(folder, name, CONFIG_FILE) for name in names)
