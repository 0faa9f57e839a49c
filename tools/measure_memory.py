#!/usr/bin/env python3
"""Compares the KV memory that edged books with what a cache really takes, one process for each measurement.

By resident memory where the cache has 100 MB or more, by the bytes of its tensors where it is smaller. Without MODEL
a set of small shapes is made and measured; --full adds the full-size ones (minutes, 3 GB each), and folders that are
there can be named. Exit codes: 0 every estimate within -2 % and +5 %, 1 one is not or a measurement failed, 2 wrong
usage.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memory.pairs import FULL, FULL_LENGTHS, SMALL, Model

HERE = Path(__file__).resolve().parent
LEAST, MOST = -0.02, 0.05
TIMEOUT_S = 900
MIB = 2**20


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; the table or the JSON goes to stdout, complaints to stderr."""
    args = _parser().parse_args(argv)
    rows: list[dict[str, Any]] = []
    failed = False
    with tempfile.TemporaryDirectory(prefix="edged-memory-") as scratch:
        if not args.json:
            print(f"{'model':42} {'tokens':>6} {'booked MiB':>11} {'took MiB':>9} by", end="")
            print(f"      {'error':>7} {'slice peak MiB':>15}", flush=True)
        for folder, tokens in _pairs(args, Path(scratch)):
            try:
                row = measure(folder, tokens, args.slice)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                print(f"measure_memory.py: {folder} at {tokens} tokens: {_reason(error)}", file=sys.stderr)
                failed = True
                continue
            rows.append(row)
            if not args.json:
                _print_row(row)
    outside = [row for row in rows if not row["within"]]
    errors = [row["error"] for row in rows]
    if args.json:
        print(json.dumps({"pairs": rows, "outside": len(outside), "least": LEAST, "most": MOST}))
    elif rows:
        print(f"{len(rows)} pairs, error from {min(errors):+.2%} to {max(errors):+.2%}; {len(outside)} outside the bar")
    return 1 if failed or outside or not rows else 0


def measure(folder: Path, tokens: int, slice_tokens: int) -> dict[str, Any]:
    """One pair, in a process of its own. Raises what subprocess and json raise."""
    command = [sys.executable, str(HERE / "memory" / "child.py"), str(folder), str(tokens), str(slice_tokens)]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    row["by"] = "tensors" if row["tensor_bytes"] else "rss"
    row["took_bytes"] = row["tensor_bytes"] or row["rss_bytes"]
    row["error"] = row["estimate_bytes"] / row["took_bytes"] - 1 if row["took_bytes"] > 0 else float("inf")
    row["within"] = LEAST <= row["error"] <= MOST
    return row


def _pairs(args: argparse.Namespace, scratch: Path) -> Iterator[tuple[Path, int]]:
    for folder in args.models:
        yield from ((folder, tokens) for tokens in args.tokens or FULL_LENGTHS)
    if args.models:
        return
    for model in (*SMALL, *(FULL if args.full else ())):
        folder = _made(model, scratch)
        yield from ((folder, tokens) for tokens in args.tokens or model.lengths)
        for file in folder.iterdir():
            file.unlink()


def _made(model: Model, scratch: Path) -> Path:
    folder = scratch / model.name
    command = [sys.executable, str(HERE / "make_synthetic.py"), model.shape, str(folder), "--quiet", *model.options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def _print_row(row: dict[str, Any]) -> None:
    mark = "" if row["within"] else "  OUTSIDE"
    print(
        f"{row['model']:42} {row['tokens']:6} {row['estimate_bytes'] / MIB:11.2f} {row['took_bytes'] / MIB:9.2f} "
        f"{row['by']:7} {row['error']:+7.2%} {row['prefill_peak_bytes'] / MIB:9.1f} /{row['slice_tokens']:4}{mark}",
        flush=True,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"the child ended with {error.returncode}"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: measure_memory.py ./phi3.5-mini --tokens 256 1024",
    )
    parser.add_argument("models", metavar="MODEL", nargs="*", type=Path, help="a model folder")
    parser.add_argument("--tokens", type=_positive, nargs="+", help="lengths instead of the built-in ones")
    parser.add_argument("--full", action="store_true", help="also make and measure the full-size shapes")
    parser.add_argument("--slice", type=_positive, default=64, help="tokens of the prefill slice (64)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 16:
        raise argparse.ArgumentTypeError("at least 16")
    return value


if __name__ == "__main__":
    sys.exit(main())
