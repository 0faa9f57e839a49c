#!/usr/bin/env python3
"""Makes a model folder of a public shape with random weights, int4, for measuring a device before any download.

The graph is the one onnxruntime-genai's model builder writes, so speed and memory are those of the real model; the
answers are nonsense. Needs numpy and onnx (the extra `synthetic`), no torch. Exit codes: 0 made, 1 could not be made,
2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

try:
    import onnx
except ImportError:
    sys.exit("make_synthetic.py needs numpy and onnx: pip install 'edged[synthetic]'")

from synthetic.genai_config import genai_config
from synthetic.graph import decoder
from synthetic.shapes import SHAPES, Shape
from synthetic.tokenizer import CHAT_TEMPLATE, MIN_VOCAB, SPECIALS, tokenizer, tokenizer_config
from synthetic.weights import WeightFile

GIB = 2**30
MIB = 2**20


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; messages for people go to stderr, the result (one line, or JSON) to stdout."""
    args = _parser().parse_args(argv)
    shape = _chosen_shape(args)
    out: Path = args.out
    if out.exists() and not args.force and (not out.is_dir() or any(out.iterdir())):
        return _fail(f"{out} exists already; choose another path or give --force")
    if args.force and out.is_dir() and any(out.iterdir()) and not (out / "genai_config.json").exists():
        return _fail(f"{out} is not a model folder: not replaced; choose another path")
    started = time.monotonic()
    need = estimated_bytes(shape)
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(out.parent).free
        if need > free:
            return _fail(f"{shape.name} takes {need / GIB:.1f} GiB; {out.parent} has {free / GIB:.1f} GiB free")
        aside.mkdir()
        write_model(shape, aside, args.seed, _progress(need, quiet=args.quiet))
        if out.exists():
            shutil.rmtree(out)
        aside.rename(out)
    except OSError as error:
        return _fail(f"could not write {out}: {error}")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _report(shape, out, time.monotonic() - started, as_json=args.json)
    return 0


def write_model(shape: Shape, folder: Path, seed: int, progress: Callable[[int], None]) -> None:
    """Writes all files of the model into `folder`, weights streamed; raises OSError."""
    silent = range(shape.vocab - SPECIALS, shape.vocab)
    with (folder / "model.onnx.data").open("wb") as file:
        model = decoder(shape, WeightFile(file, "model.onnx.data", seed, progress), silent)
    onnx.save_model(model, folder / "model.onnx")
    texts = {
        "genai_config.json": json.dumps(genai_config(shape), indent=4),
        "tokenizer.json": json.dumps(tokenizer(shape.vocab), ensure_ascii=False),
        "tokenizer_config.json": json.dumps(tokenizer_config(shape.context), indent=2),
        "chat_template.jinja": CHAT_TEMPLATE,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def estimated_bytes(shape: Shape) -> int:
    """What the folder will take: float32 embedding and tables, int4 weights with a float32 scale for each block."""
    layer = shape.hidden * (shape.qkv_width + shape.heads * shape.head_dim + 3 * shape.intermediate)
    weights = shape.layers * layer + shape.hidden * shape.vocab
    tables = shape.context + (shape.long_rope.original_context if shape.long_rope else 0)
    floats = shape.vocab * shape.hidden + tables * shape.head_dim + weights // shape.block_size
    return weights // 2 + 4 * floats + 2**18


def _report(shape: Shape, out: Path, seconds: float, *, as_json: bool) -> None:
    size_bytes = sum(file.stat().st_size for file in out.iterdir())
    kv_bytes = shape.kv_bytes_per_token
    peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if as_json:
        facts = {
            "model": shape.name,
            "path": str(out),
            "bytes": size_bytes,
            "kv_bytes_per_token": kv_bytes,
            "seconds": round(seconds, 2),
            "peak_rss_bytes": peak_rss_bytes,
        }
        print(json.dumps(facts))
    else:
        print(
            f"{out}: {shape.name}, {size_bytes / MIB:,.0f} MiB, KV {kv_bytes / 1024:g} KiB a token, "
            f"made in {seconds:.1f} s with {peak_rss_bytes / MIB:,.0f} MiB of memory"
        )


def _chosen_shape(args: argparse.Namespace) -> Shape:
    changes = {
        "layers": args.layers,
        "vocab": args.vocab,
        "block_size": args.block_size,
        "pruned_head": args.pruned_head,
    }
    shape = SHAPES[args.shape]
    given = {key: value for key, value in changes.items() if value is not None}
    return replace(shape, **given)


def _parser() -> argparse.ArgumentParser:
    shapes = "\n".join(
        f"  {shape.name:16} {shape.layers:3} layers, hidden {shape.hidden:5}, {shape.heads:2} heads "
        f"({shape.kv_heads:2} KV), vocabulary {shape.vocab:6}, {estimated_bytes(shape) / MIB:5.0f} MiB, "
        f"KV {shape.kv_bytes_per_token / 1024:g} KiB a token"
        for shape in SHAPES.values()
    )
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(),
        epilog=f"shapes (sizes with blocks of 32):\n{shapes}\n\nexample: make_synthetic.py phi3.5-mini ./phi3.5-mini",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shape", metavar="SHAPE", choices=list(SHAPES), help=f"one of: {', '.join(SHAPES)}")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to make")
    parser.add_argument("--block-size", type=int, choices=(16, 32, 64, 128), help="int4 weights sharing a scale (32)")
    head = parser.add_mutually_exclusive_group()
    head.add_argument(
        "--full-head", dest="pruned_head", action="store_false", default=None, help="logits of every token"
    )
    head.add_argument("--pruned-head", dest="pruned_head", action="store_true", help="logits of the last token only")
    parser.add_argument("--layers", type=_count(1, 1024), help="another number of layers")
    parser.add_argument("--vocab", type=_count(MIN_VOCAB, 500_000), help="another size of the vocabulary")
    parser.add_argument("--seed", type=_count(0, 2**63), default=0, help="of the random weights (0)")
    parser.add_argument("--force", action="store_true", help="replace OUT if it is a model folder")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return parser


def _count(least: int, most: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"a whole number from {least} to {most}, not {text!r}")
        return value

    return count


def _progress(need: int, *, quiet: bool) -> Callable[[int], None]:
    """Percent on stderr: in place on a terminal, else a line for each tenth."""
    is_terminal = sys.stderr.isatty()
    shown = -1

    def show(written: int) -> None:
        nonlocal shown
        percent = min(100, 100 * written // need)
        if quiet or percent == shown or (not is_terminal and percent // 10 == shown // 10):
            return
        shown = percent
        print(f"\rweights {percent:3} %" if is_terminal else f"weights {percent} %", end="" if is_terminal else "\n",
              file=sys.stderr, flush=True)  # fmt: skip

    return show


def _fail(reason: str) -> int:
    print(f"make_synthetic.py: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
