"""`python -m edged.engine.backends.bare MODEL_FOLDER`: the plain genai loop that the benchmark compares with.

What a program without edged would write: one generator per request, the whole prompt in one append, a token stream,
greedy, end-of-text ignored so that lengths are equal. One JSON task a line on standard input, one JSON result a line on
standard output. Times in seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime_genai as og

Result = dict[str, Any]


class Bare:
    """A loaded model and the loops over it."""

    def __init__(self, folder: str, threads: int) -> None:
        config = og.Config(folder)
        config.clear_providers()
        vocab_size = json.loads((Path(folder) / "genai_config.json").read_bytes())["model"]["vocab_size"]
        config.overlay(json.dumps({"model": {"eos_token_id": [vocab_size - 1]}}))  # one that is not met in practice
        if threads:
            options = {"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}
            config.overlay(json.dumps(options))
        self._model = og.Model(config)
        self._tokenizer = og.Tokenizer(self._model)

    def chat(self, text: str, max_tokens: int, capacity: int) -> Result:
        """One whole request: time to the first token's text, and tokens per second after it."""
        started_s = time.perf_counter()
        generator = self._generator(capacity)
        stream = self._tokenizer.create_stream()
        messages = json.dumps([{"role": "user", "content": text}])
        prompt = self._tokenizer.encode(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True))
        generator.append_tokens(prompt)
        first_s = 0.0
        for _ in range(max_tokens):
            generator.generate_next_token()
            stream.decode(generator.get_next_tokens()[0])
            first_s = first_s or time.perf_counter()
        took_s = time.perf_counter() - first_s
        return {
            "prompt_tokens": len(prompt),
            "ttft_s": first_s - started_s,
            "decode_tps": (max_tokens - 1) / took_s if max_tokens > 1 else 0.0,
        }

    def append(self, behind: list[int], new: list[int], capacity: int) -> Result:
        """Time to the first token of `new` tokens with `behind` tokens already read."""
        generator = self._generator(capacity)
        if behind:
            generator.append_tokens(behind)
        started_s = time.perf_counter()
        generator.append_tokens(new)
        generator.generate_next_token()
        return {"ttft_s": time.perf_counter() - started_s}

    def _generator(self, capacity: int) -> Any:
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=capacity, do_sample=False)
        return og.Generator(self._model, params)


def main() -> None:
    """Load, then answer tasks until standard input ends."""
    started_s = time.perf_counter()
    bare = Bare(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    print(json.dumps({"load_s": time.perf_counter() - started_s}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        result = getattr(bare, {"chat": "chat", "append": "append"}[task.pop("do")])(**task)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
