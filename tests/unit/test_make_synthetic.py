"""The synthetic models have the model builder's own graph, answer in the real library, and come from a seed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from make_synthetic import estimated_bytes, main
from synthetic.genai_config import genai_config
from synthetic.graph import decoder
from synthetic.shapes import SHAPES, LongRope, Shape
from synthetic.summary import summarize
from synthetic.tokenizer import MIN_VOCAB, SPECIALS, special_ids, tokenizer
from synthetic.weights import WeightFile

ROOT = Path(__file__).resolve().parents[2]
RECORDED = json.loads((ROOT / "tests/data/builder_graph_phi3.json").read_text(encoding="utf-8"))["cases"]

# Encodes and decodes each text, then answers a chat greedily; prints JSON.
ANSWER = """
import json, sys
import numpy as np
import onnxruntime_genai as og

model = og.Model(sys.argv[1])
tokenizer = og.Tokenizer(model)
texts = json.loads(sys.argv[2])
there = [[int(token) for token in tokenizer.encode(text)] for text in texts]
back = [tokenizer.decode(np.array(ids, dtype=np.int32)) for ids in there]
chat = tokenizer.apply_chat_template(json.dumps([{"role": "user", "content": "Hello"}]), add_generation_prompt=True)
prompt = tokenizer.encode(chat)
params = og.GeneratorParams(model)
params.set_search_options(max_length=len(prompt) + 64)
generator = og.Generator(model, params)
generator.append_tokens(prompt)
logits, tokens = generator.get_logits()[0, -1], []
while not generator.is_done():
    generator.generate_next_token()
    tokens.append(int(generator.get_next_tokens()[0]))
print(json.dumps({"ids": there, "back": back, "chat": chat, "prompt": [int(token) for token in prompt],
                  "tokens": tokens, "spread": float(logits.std()), "finite": bool(np.isfinite(logits).all())}))
"""
TEXTS = [
    "the lab is warm",
    "two  spaces ",
    "Ünïcödé",
    "日本語 text",
    "😀👍🏽",
    "tab\tand\nline",
    '{"a": [1, 2]}',
    "x" * 500,
]


def make(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools/make_synthetic.py"), *args]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


def answer(folder: Path) -> Any:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", ANSWER, str(folder), json.dumps(TEXTS)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def recorded_shape(case: str) -> Shape:
    fields = RECORDED[case]["shape"]
    long_rope = LongRope(**fields["long_rope"]) if fields["long_rope"] else None
    return Shape(**{**fields, "long_rope": long_rope})


@pytest.mark.parametrize("case", RECORDED)
def test_the_graph_is_the_builders_node_for_node(case: str) -> None:
    """After a new builder: tools/record_builder_graph.py refreshes the list."""
    model = decoder(recorded_shape(case), WeightFile(io.BytesIO(), "x", 0, lambda _: None), range(0))
    ours, theirs = json.loads(json.dumps(summarize(model))), RECORDED[case]["graph"]
    for part in theirs:
        assert ours[part] == theirs[part], part
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("case", RECORDED)
def test_the_configuration_is_the_builders_but_for_token_ids(case: str) -> None:
    ours, theirs = genai_config(recorded_shape(case)), RECORDED[case]["genai_config"]
    for config in (ours, theirs):
        for key in ("eos_token_id", "pad_token_id"):
            del config["model"][key]
    assert ours == theirs


def test_the_record_covers_what_the_shapes_use() -> None:
    recorded = [recorded_shape(case) for case in RECORDED]
    assert {bool(shape.long_rope) for shape in recorded} == {True, False}
    assert {shape.pruned_head for shape in recorded} == {True, False}
    assert {shape.model_type for shape in recorded} == {shape.model_type for shape in SHAPES.values()}
    assert any(shape.kv_heads < shape.heads for shape in recorded)


@pytest.mark.parametrize("args", [("tiny",), ("tiny-gqa", "--pruned-head", "--block-size", "128"), ("tiny-longrope",)])
def test_it_answers_in_the_real_library(args: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    made = make(args[0], str(folder), "--json", *args[1:])
    assert made.returncode == 0, made.stderr
    facts = json.loads(made.stdout)
    assert facts["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    shape, found = SHAPES[args[0]], answer(folder)
    assert [text.removeprefix(" ") for text in found["back"]] == TEXTS  # decoding keeps the mark before the first word
    specials = special_ids(shape.vocab)
    assert found["prompt"][0] == specials["<|user|>"]
    assert specials["<|assistant|>"] in found["prompt"]
    assert found["finite"]
    assert 1 < found["spread"] < 10
    assert len(found["tokens"]) == 64  # it never ends by itself
    assert len(set(found["tokens"])) > 8
    assert max(found["tokens"]) < shape.vocab - SPECIALS


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    weights = {}
    for name, seed in (("first", "7"), ("again", "7"), ("other", "8")):
        assert make("tiny", str(tmp_path / name), "--seed", seed).returncode == 0
        weights[name] = (tmp_path / name / "model.onnx.data").read_bytes()
    assert weights["first"] == weights["again"] != weights["other"]


def test_weights_are_streamed(tmp_path: Path) -> None:
    """Twice the layers, 57 MiB of weights each, in the same memory."""
    peaks = []
    for layers in ("1", "3"):
        folder = tmp_path / layers
        made = make("phi3.5-mini", str(folder), "--layers", layers, "--vocab", "2048", "--json", "--quiet")
        peaks.append(json.loads(made.stdout)["peak_rss_bytes"])
    assert (tmp_path / "3/model.onnx.data").stat().st_size > 200 * 2**20
    assert abs(peaks[1] - peaks[0]) < 32 * 2**20


def test_an_existing_folder_is_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    refused = make("tiny", str(tmp_path))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--force" in refused.stderr
    assert make("tiny", str(tmp_path), "--force").returncode == 1  # it may be anybody's folder
    assert (tmp_path / "kept.txt").read_text() == "mine"
    (tmp_path / "genai_config.json").write_text("{}")
    assert make("tiny", str(tmp_path), "--force").returncode == 0
    assert not (tmp_path / "kept.txt").exists()
    assert (tmp_path / "model.onnx").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = make("tiny", str(tmp_path / "file" / "model"))
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert str(tmp_path / "file") in refused.stderr


@pytest.mark.parametrize(
    "args",
    [("giant", "x"), ("tiny",), ("tiny", "x", "--block-size", "7"), ("tiny", "x", "--vocab", str(MIN_VOCAB - 1)),
     ("tiny", "x", "--layers", "0"), ("tiny", "x", "--seed", "-1"), ("tiny", "x", "--full-head", "--pruned-head")],
)  # fmt: skip
def test_wrong_usage_exits_with_2(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(list(args))
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_too_little_room_is_said_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = type("Usage", (), {"free": 2**30})()
    monkeypatch.setattr("shutil.disk_usage", lambda _: full)
    assert main(["phi3.5-mini", str(tmp_path / "model")]) == 1
    assert "1.0 GiB free" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_estimate_of_the_size_holds(tmp_path: Path) -> None:
    for name in ("tiny", "tiny-longrope"):
        made = json.loads(make(name, str(tmp_path / name), "--json").stdout)
        assert estimated_bytes(SHAPES[name]) == pytest.approx(made["bytes"], rel=0.15)
    assert estimated_bytes(SHAPES["phi3.5-mini"]) == pytest.approx(2_774_152_000, rel=0.01)  # as made and measured


@pytest.mark.parametrize("vocab", [MIN_VOCAB, 2048, 32_000, 32_064, 128_256])
def test_each_id_of_a_vocabulary_has_one_piece(vocab: int) -> None:
    made = tokenizer(vocab)
    ids = [*made["model"]["vocab"].values(), *(token["id"] for token in made["added_tokens"])]
    assert set(ids) == set(range(vocab))
    pieces = made["model"]["vocab"]
    assert len(pieces) == vocab - SPECIALS
    for merge in made["model"]["merges"]:
        left, right = merge.split(" ")
        assert {left, right, left + right} <= pieces.keys()
