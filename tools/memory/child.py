"""One measurement in a process of its own: `python child.py FOLDER TOKENS SLICE_TOKENS` prints JSON.

The model is loaded and has read a few tokens before anything is measured, and the heap is trimmed: otherwise the cache
would fill pages that the load left behind, and its growth would not show.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edged.engine.backends.genai import GenaiBackend, GenaiSlot
from edged.hardware.memory import process_rss
from edged.store.manifest import ModelManifest, read_manifest

SETTLE_TOKENS = 8
BY_RSS_BYTES = 100_000_000  # caches from here on show clearly in the resident memory


def main() -> None:
    folder, tokens, slice_tokens = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    manifest = read_manifest(folder)
    backend = GenaiBackend(folder, manifest, folder.name, manifest.max_tokens)
    settle = backend.open_slot(SETTLE_TOKENS * 2)
    backend.prefill(settle, [*range(10, 10 + SETTLE_TOKENS)])
    backend.close_slot(settle)
    ctypes.CDLL(None).malloc_trim(0)
    before_bytes, _, _ = _resident()
    slot = backend.open_slot(tokens)
    grown_bytes = _resident()[0] - before_bytes
    found: dict[str, Any] = {
        "model": folder.name,
        "tokens": tokens,
        "estimate_bytes": tokens * backend.info.kv_bytes_per_token,
        "rss_bytes": grown_bytes,
        "slice_tokens": min(slice_tokens, tokens - 1),
    }
    found["prefill_peak_bytes"] = _prefill_peak_bytes(backend, slot, found["slice_tokens"])
    found["tensor_bytes"] = 0 if found["estimate_bytes"] >= BY_RSS_BYTES else _tensor_bytes(folder, manifest, slot)
    print(json.dumps(found))


def _prefill_peak_bytes(backend: GenaiBackend, slot: GenaiSlot, tokens: int) -> int:
    """The most anonymous memory that reading one slice takes beside weights and KV."""
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts again (proc(5))
    _, before_bytes, _ = _resident()
    backend.prefill(slot, [10 + at % 100 for at in range(tokens)])
    _, _, mapped_bytes = _resident()
    return max(0, _status("VmHWM") - mapped_bytes - before_bytes)


def _tensor_bytes(folder: Path, manifest: ModelManifest, slot: GenaiSlot) -> int:
    """The sizes of the cache's own tensors, summed; copies them, so it comes last."""
    decoder = json.loads((folder / "genai_config.json").read_bytes())["model"]["decoder"]
    total = 0
    for kind in ("present_key_names", "present_value_names"):
        pattern = decoder["outputs"][kind]
        names = ((pattern % layer).encode() for layer in range(manifest.kv.layers))
        total += sum(slot.generator.output("OgaGenerator_GetOutput", name).nbytes for name in names)
    return total


def _resident() -> tuple[int, int, int]:
    """Resident bytes: all, anonymous, mapped from files."""
    rss = process_rss()
    assert rss is not None
    return rss.rss_bytes, rss.anon_bytes or 0, rss.file_bytes or 0


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


main()
