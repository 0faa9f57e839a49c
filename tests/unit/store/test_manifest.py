"""A model folder is described as it is, or refused with the file, the fault and what to do."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from edged.errors import ModelError
from edged.store.manifest import read_manifest

Config = dict[str, Any]
Edit = Callable[[Callable[[Config], object]], None]


def refusal(folder: Path) -> ModelError:
    with pytest.raises(ModelError) as caught:
        read_manifest(folder)
    assert len(caught.value.reason) < 400
    assert "\n" not in caught.value.reason
    assert str(folder) not in caught.value.reason  # it may travel to clients
    return caught.value


def test_a_whole_model_is_described(make_model: Callable[..., Path]) -> None:
    folder = make_model("tiny")
    manifest = read_manifest(folder)
    assert (manifest.kind, manifest.model_type, manifest.decoder_file) == ("text", "phi3", "model.onnx")
    assert (manifest.context_length, manifest.max_tokens, manifest.rope_limit) == (4096, 4096, None)
    assert (manifest.bos_id, manifest.eos_ids, manifest.pad_id, manifest.vocab_size) == (1, (1991, 1984), 1984, 2048)
    assert (manifest.kv.layers, manifest.kv.kv_heads, manifest.kv.head_dim, manifest.kv.dtype_bytes) == (2, 4, 32, 4)
    assert manifest.kv_bytes_per_token == 2 * 2 * 4 * 32 * 4
    assert manifest.share_buffer
    assert manifest.has_chat_template
    assert manifest.full_logits
    sizes = [(folder / name).stat().st_size for name in ("model.onnx", "model.onnx.data")]
    assert manifest.weights_bytes == sum(sizes)
    assert "tokenizer.json" in manifest.files
    assert len(manifest.files) == 6


def test_what_differs_between_models_is_seen(make_model: Callable[..., Path]) -> None:
    gqa = read_manifest(make_model("tiny-gqa", "--pruned-head"))
    assert gqa.kv.kv_heads == 2
    assert not gqa.full_logits
    assert gqa.model_type == "llama"
    long = read_manifest(make_model("tiny-longrope"))
    assert (long.context_length, long.rope_limit, long.max_tokens) == (1024, 256, 256)


def test_a_longrope_model_is_capped_even_when_its_graph_hides_it(model: Path, edit_config: Edit) -> None:
    edit_config(lambda config: config["model"].update(context_length=131_072))
    assert read_manifest(model).max_tokens == 4096
    edit_config(lambda config: config["model"].update(type="llama"))
    assert read_manifest(model).max_tokens == 131_072


def test_positions_shifted_into_a_joined_table_are_longrope_too(model: Path) -> None:
    """What the builder writes for providers without `If`."""
    whole = onnx.load(model / "model.onnx", load_external_data=False)
    name = "/model/pos_ids_reformat/GreaterOrEqual"
    inputs = ["input_ids", "/model/constants/INT64/2048"]
    whole.graph.node.append(onnx.helper.make_node("GreaterOrEqual", inputs, ["x"], name=name))
    (model / "model.onnx").write_bytes(whole.SerializeToString())
    assert read_manifest(model).rope_limit == 2048


def window(size: int) -> Config:
    return {"window_size": size, "slide_key_value_cache": False, "slide_inputs": False, "layers": [], "cache_slack": 0}


def test_a_window_that_the_graph_lacks_caps_the_context(model: Path, edit_config: Edit) -> None:
    edit_config(lambda config: config["model"]["decoder"].update(sliding_window=window(512)))
    manifest = read_manifest(model)
    assert (manifest.inert_window, manifest.sliding_window, manifest.max_tokens) == (512, None, 512)
    edit_config(lambda config: config["model"]["decoder"].update(sliding_window=window(262_144)))
    assert read_manifest(model).max_tokens == 4096


def change_kv(model: Path, change: Callable[[onnx.ValueInfoProto, int], object]) -> None:
    whole = onnx.load(model / "model.onnx", load_external_data=False)
    for value in whole.graph.input:
        if value.name.startswith("past"):
            change(value, int(value.name.split(".")[1]))
    (model / "model.onnx").write_bytes(whole.SerializeToString())


def test_a_window_that_the_graph_has_bounds_its_layers(model: Path, edit_config: Edit) -> None:
    def slide(value: onnx.ValueInfoProto, layer: int) -> None:
        if layer == 0:
            value.type.tensor_type.shape.dim[2].dim_param = "past_sliding_length"

    change_kv(model, slide)
    edit_config(lambda config: config["model"]["decoder"].update(sliding_window=window(512)))
    manifest = read_manifest(model)
    assert (manifest.sliding_window, manifest.inert_window, manifest.max_tokens) == (512, None, 4096)
    one_layer = 2 * 4 * 32 * 4
    assert manifest.kv.bytes_for(4096) == one_layer * (4096 + 512 + 16)


@pytest.mark.parametrize(("dtype", "bytes_per_token"), [(1, 2048), (10, 1024), (3, 512), (2, 256)])
def test_the_kv_dtype_is_the_graphs(model: Path, dtype: int, bytes_per_token: int) -> None:
    """float32, float16, int8, and int4 packed in uint8."""

    def set_dtype(value: onnx.ValueInfoProto, _: int) -> None:
        value.type.tensor_type.elem_type = dtype

    change_kv(model, set_dtype)
    assert read_manifest(model).kv_bytes_per_token == bytes_per_token


def test_the_graphs_own_width_wins_over_the_configuration(model: Path) -> None:
    def set_width(value: onnx.ValueInfoProto, _: int) -> None:
        value.type.tensor_type.shape.dim[3].dim_value = 64

    change_kv(model, set_width)
    assert read_manifest(model).kv.head_dim == 64


def test_kv_inputs_that_make_no_sense_are_refused(model: Path) -> None:
    original = (model / "model.onnx").read_bytes()

    def uneven(value: onnx.ValueInfoProto, layer: int) -> None:
        value.type.tensor_type.shape.dim[1].dim_value = 4 + layer

    def text(value: onnx.ValueInfoProto, _: int) -> None:
        value.type.tensor_type.elem_type = 8

    def flat(value: onnx.ValueInfoProto, _: int) -> None:
        del value.type.tensor_type.shape.dim[2:]

    def state(value: onnx.ValueInfoProto, layer: int) -> None:
        if layer == 1:
            value.name = value.name.replace("key_values", "recurrent")

    def none(value: onnx.ValueInfoProto, _: int) -> None:
        value.name = value.name.replace("past", "cache")

    for change, word in (
        (uneven, "different"),
        (text, "string"),
        (flat, "refused"),
        (state, "state"),
        (none, "no such"),
    ):
        (model / "model.onnx").write_bytes(original)
        change_kv(model, change)
        error = refusal(model)
        assert error.file == "model.onnx"
        assert word in error.reason


def test_each_missing_or_half_copied_file_is_named(model: Path) -> None:
    for name in ("genai_config.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json"):
        path = model / name
        whole = path.read_bytes()
        for left in (whole[:-100], whole[: len(whole) // 2], b""):
            path.write_bytes(left)
            assert refusal(model).file == name
        path.unlink()
        assert refusal(model).file == name
        path.mkdir()
        assert refusal(model).file == name
        path.rmdir()
        path.write_bytes(whole)
    read_manifest(model)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere").reason
    (tmp_path / "file").write_text("")
    assert "not a folder" in refusal(tmp_path / "file").reason
    assert refusal(tmp_path).file == "genai_config.json"
    (tmp_path / "edged.toml").write_text("")
    assert "plain ONNX" in refusal(tmp_path).reason


def test_names_that_lead_outside_are_refused(model: Path, edit_config: Edit, tmp_path: Path) -> None:
    (tmp_path / "outside.onnx").write_bytes((model / "model.onnx").read_bytes())
    (model / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    (model / "ring.onnx").symlink_to("ring.onnx")
    names = ("../outside.onnx", "/etc/passwd", "a/../model.onnx", "./model.onnx", "", "link.onnx", "ring.onnx", ".")
    for name in (*names, "C:model.onnx", "..\\outside.onnx", "x" * 300, "sha256:" + "0" * 64, "a//b"):
        edit_config(lambda config, name=name: config["model"]["decoder"].update(filename=name))  # type: ignore[misc]
        refusal(model)
    (model / "inside.onnx").symlink_to("model.onnx")
    edit_config(lambda config: config["model"]["decoder"].update(filename="inside.onnx"))
    assert read_manifest(model).decoder_file == "inside.onnx"


@pytest.mark.parametrize("location", ["../model.onnx.data", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", "missing.data", "a/b"])
def test_weights_kept_outside_are_refused(model: Path, location: str) -> None:
    (model.parent / "model.onnx.data").write_bytes((model / "model.onnx.data").read_bytes())
    whole = onnx.load(model / "model.onnx", load_external_data=False)
    whole.graph.initializer[3].external_data[0].value = location
    (model / "model.onnx").write_bytes(whole.SerializeToString())
    refusal(model)


def put(path: str, value: object) -> Callable[[Config], object]:
    def change(config: Config) -> None:
        *sections, key = path.split("/")
        for section in sections:
            config = config[section]
        config[key] = value

    return change


SESSION = "model/decoder/session_options"
REFUSED = {
    f"{SESSION}/custom_ops_library": "evil.so",
    "model/custom_ops_library": "evil.so",
    "custom_ops_library": "evil.so",
    f"{SESSION}/enable_profiling": "/tmp/trace",
    f"{SESSION}/session.disable_prepacking": "1",
    f"{SESSION}/session.model_external_initializers_file_folder_path": "/etc",
    f"{SESSION}/ep.context_file_path": "x",
    f"{SESSION}/provider_options": [{"QNN": {"backend_path": "/tmp/evil.so"}}],
    f"{SESSION}/log_id": {"deep": 1},
    "model/decoder/pipeline": [],
    "model/decoder/shared_initializers": [],
    "model/draft": {"filename": "../x"},
    "model/encoder": {},
    "model/tokenizer_dir": "..",
    "model/unknown": 1,
    "model/type": "gpt2",
    "model/context_length": 0,
    "model/vocab_size": "many",
    "model/eos_token_id": [1, -1],
    "model/bos_token_id": True,
    "model/decoder/head_size": 2**40,
    "model/decoder/num_attention_heads": None,
    "model/decoder/filename": 7,
    "model/decoder/inputs/past_key_names": "%s%s%s%n",
    "model/decoder/inputs/past_value_names": "past_key_values.%d.%d",
    "model/decoder/outputs/logits": "elsewhere",
    "model/decoder/sliding_window": {"window_size": 512},
    "model/decoder": [],
    "search/past_present_share_buffer": "yes",
    "search/max_length": {},
    "engine": {"dynamic_batching": {}},
}


@pytest.mark.parametrize("path", REFUSED)
def test_a_key_or_value_off_the_list_is_refused_by_name(path: str, model: Path, edit_config: Edit) -> None:
    edit_config(put(path, REFUSED[path]))
    error = refusal(model)
    assert error.file == "genai_config.json" or path.endswith("logits")
    assert path.rpartition("/")[2].split(".")[0] in error.reason or path.endswith(("logits", "names", "options"))


def test_keys_that_builders_write_for_other_providers_pass(model: Path, edit_config: Edit) -> None:
    options = {"enable_cuda_graph": "0", "enable_skip_layer_norm_strict_mode": "1"}
    edit_config(put(f"{SESSION}/provider_options", [{"cuda": options}]))
    edit_config(put(f"{SESSION}/intra_op_num_threads", 4))
    read_manifest(model)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "null", "{'a': 1}", "\xff", "[" * 100_000, '{"model": {}}', '{"model": {}, "model": {}}',
     '{"model": {"vocab_size": NaN}}', '{"model": {"vocab_size": ' + "9" * 5_000 + "}}", " " * (5 * 2**20),
     '{"a":' * 50 + "1" + "}" * 50],
)  # fmt: skip
def test_text_that_is_no_such_json_is_refused(text: str, model: Path) -> None:
    (model / "genai_config.json").write_bytes(text.encode("latin-1"))
    assert refusal(model).file == "genai_config.json"


def test_a_mutated_configuration_is_described_or_refused(model: Path) -> None:
    original = (model / "genai_config.json").read_bytes()
    chance = random.Random(3)
    refused = 0
    for _ in range(1_500):
        data = bytearray(original)
        at = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + chance.randrange(1, 40)]
            case 2:
                data[at:at] = chance.choice((b"{", b"[", b'"', b"-", b"99999999999", b"null,", b"\\u0000"))
            case _:
                del data[at:]
        (model / "genai_config.json").write_bytes(data)
        try:
            read_manifest(model)
        except ModelError:
            refused += 1
    assert refused > 500


def vision_folder(model: Path, edit_config: Edit) -> None:
    """A folder laid out as Phi-3.5-vision is; its parts are copies of the text graph, which is enough to be read."""
    for name in ("vision.onnx", "embedding.onnx"):
        (model / name).write_bytes((model / "model.onnx").read_bytes())
    steps = [{"operation": {"type": kind}} for kind in ("DecodeImage", "ConvertRGB", "Phi3ImageTransform")]
    (model / "processor_config.json").write_text(json.dumps({"processor": {"transforms": steps}}))
    edit_config(put("model/type", "phi3v"))
    parts = {"inputs": {"pixel_values": "pixel_values"}, "outputs": {"image_features": "image_features"}}
    edit_config(put("model/vision", {"filename": "vision.onnx", **parts}))
    edit_config(put("model/embedding", {"filename": "embedding.onnx"}))


def test_a_vision_model_needs_all_its_parts(model: Path, edit_config: Edit) -> None:
    vision_folder(model, edit_config)
    manifest = read_manifest(model)
    assert manifest.kind == "vision-language"
    assert manifest.most_crops == 16
    graphs = sum((model / name).stat().st_size for name in ("model.onnx", "vision.onnx", "embedding.onnx"))
    assert manifest.weights_bytes == graphs + (model / "model.onnx.data").stat().st_size
    for name in ("vision.onnx", "embedding.onnx", "processor_config.json"):
        whole = (model / name).read_bytes()
        (model / name).unlink()
        assert refusal(model).file == name
        (model / name).write_bytes(whole)


def test_the_chat_template_may_stand_in_the_tokenizers_configuration(model: Path) -> None:
    (model / "chat_template.jinja").unlink()
    assert not read_manifest(model).has_chat_template
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": "{{ messages }}"}))
    assert read_manifest(model).has_chat_template


def test_a_folder_with_a_crowd_of_files_is_refused(model: Path) -> None:
    for number in range(1_001):
        (model / f"{number}").touch()
    assert "more than" in refusal(model).reason
