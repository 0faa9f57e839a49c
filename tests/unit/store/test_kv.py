"""The KV formula, and the same figures measured on the real library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edged.store.kv import KvShape
from edged.store.manifest import read_manifest
from tests.integration.raw import SLOWNESS

pytestmark = pytest.mark.aarch64

PHI35_MINI = KvShape(layers=32, kv_heads=32, head_dim=96, dtype_bytes=4)

# Prints what a generator of `max_length` adds to the resident memory, then the error of reading `prompt` tokens.
MEASURE = """
import ctypes, json, sys
import numpy as np
import onnxruntime_genai as og

folder, max_length, prompt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def resident_bytes():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

model = og.Model(folder)
def generator(length):
    params = og.GeneratorParams(model)
    params.set_search_options(max_length=length)
    return og.Generator(model, params)

generator(8)  # what the library sets up once
ctypes.CDLL(None).malloc_trim(0)  # else the cache fills pages that the load left behind
before = resident_bytes()
kept = generator(max_length)
grown, error = resident_bytes() - before, ""
try:
    kept.append_tokens(np.full(prompt, 300, dtype=np.int32))
except Exception as caught:
    error = str(caught)
print(json.dumps({"grown": grown, "error": error}))
"""


def measure(folder: Path, max_length: int, prompt: int = 4) -> tuple[int, str]:
    command = [sys.executable, "-c", MEASURE, str(folder), str(max_length), str(prompt)]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120 * SLOWNESS, env=environment)
    found = json.loads(done.stdout.splitlines()[-1])
    return found["grown"], found["error"]


def test_phi35_mini_costs_768_kib_a_token() -> None:
    assert PHI35_MINI.bytes_per_token == 768 * 1024
    assert PHI35_MINI.bytes_for(4096) == 3 * 2**30
    assert PHI35_MINI.tokens_in(3 * 2**30 - 1) == 4095
    assert PHI35_MINI.bytes_for(0) == PHI35_MINI.tokens_in(0) == PHI35_MINI.tokens_in(-1) == 0


def test_windowed_layers_stop_growing() -> None:
    shape = KvShape(layers=4, kv_heads=1, head_dim=8, dtype_bytes=2, windowed_layers=3, window_tokens=100)
    assert shape.bytes_for(50) == 4 * 32 * 50
    assert shape.bytes_for(1000) == 32 * (1000 + 3 * 100)


@pytest.mark.parametrize(
    ("args", "tokens"),
    [
        (("tiny", "--layers", "32"), 3500),
        (("tiny", "--layers", "32"), 4096),
        (("tiny-gqa", "--layers", "64"), 4000),
    ],
)
def test_the_estimate_is_what_a_generator_takes(
    make_model: Callable[..., Path], args: tuple[str, ...], tokens: int
) -> None:
    folder = make_model(*args)
    estimate = read_manifest(folder).kv.bytes_for(tokens)
    assert estimate >= 100 * 2**20
    grown, error = measure(folder, tokens)
    assert not error
    assert 0.98 * grown <= estimate <= 1.05 * grown


def test_a_window_that_the_graph_lacks_breaks_the_model_beyond_it(
    make_model: Callable[..., Path], tmp_path: Path
) -> None:
    """Why `inert_window` caps the context: the cache is made for the window + 16 tokens, and the graph then fails."""
    folder = Path(shutil.copytree(make_model("tiny", "--layers", "32"), tmp_path / "model"))
    config = json.loads((folder / "genai_config.json").read_text())
    window = {"window_size": 1024, "slide_key_value_cache": False, "slide_inputs": False, "layers": []}
    config["model"]["decoder"]["sliding_window"] = window
    (folder / "genai_config.json").write_text(json.dumps(config))
    manifest = read_manifest(folder)
    assert manifest.max_tokens == 1024
    grown, error = measure(folder, 4096, prompt=1100)
    assert grown == pytest.approx(manifest.kv.bytes_for(1024 + 16), rel=0.1)
    assert "GroupQueryAttention" in error
    assert measure(folder, manifest.max_tokens, prompt=1000)[1] == ""
