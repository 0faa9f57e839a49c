#!/usr/bin/env python3
"""Trains the nano model that edged ships, from generated data, and exports it.

Needs the packages of the extra "train" (torch, transformers, onnx_ir ...). A run lives in a folder (--out) and is
resumable: call it in parts of at most 30 minutes until it says that the schedule is done, then export.

    tools/train_nano.py --out build/nano --minutes 30             # start
    tools/train_nano.py --out build/nano --minutes 30 --resume    # go on, as often as needed
    tools/train_nano.py --out build/nano --export models/nano     # int4 ONNX
    tools/train_nano.py --out build/nano --export build/nano-fp32 --precision fp32
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> int:
    """Train or export as the arguments say. Exit code 0, or 2 for a wrong call."""
    from nano.runs import carry_out, check_folder, run_arguments, told

    arguments = run_arguments(__doc__ or "").parse_args()
    check_folder(arguments)
    import torch

    from nano.export import build_onnx, to_hugging_face
    from nano.plan import Schedule, Shape
    from nano.training import Run

    torch.set_num_threads(arguments.threads)
    compiled = not arguments.no_compile and arguments.export is None
    run = Run(arguments.out, arguments.seed, Shape(), told(Schedule(), arguments), compiled=compiled)

    def export(out: Path, precision: str) -> None:
        to_hugging_face(run.model, run.tokenizer, run.shape, run.folder / "hf")
        build_onnx(run.folder / "hf", out, precision)

    carry_out(run, arguments, train=lambda report: run.train(arguments.minutes, report), export=export)
    return 0


if __name__ == "__main__":
    sys.exit(main())
