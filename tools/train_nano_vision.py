#!/usr/bin/env python3
"""Trains the nano vision model that edged ships, from generated scenes, and exports it.

Needs the packages of the extra "train" (torch, transformers, onnx_ir ...) and Pillow. A run lives in a folder (--out)
and is resumable: call it in parts until it says that the schedule is done, then export.

    tools/train_nano_vision.py --out build/vision --minutes 30                  # start
    tools/train_nano_vision.py --out build/vision --minutes 30 --resume         # go on, as often as needed
    tools/train_nano_vision.py --out build/vision --export models/nano-vision   # int4 ONNX
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

_TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(_TOOLS.parent))
sys.path.insert(0, str(_TOOLS))


def main() -> int:
    """Train or export as the arguments say. Exit code 0, or 2 for a wrong call."""
    from nano.runs import carry_out, check_folder, run_arguments, told

    parser = run_arguments(__doc__ or "")
    parser.add_argument("--fit", action="store_true", help="make the schedule end with --minutes, at the pace found")
    arguments = parser.parse_args()
    check_folder(arguments)
    import torch

    from nano_vision.export import export
    from nano_vision.plan import Schedule, Shape
    from nano_vision.training import Run

    torch.set_num_threads(arguments.threads)
    compiled = not arguments.no_compile and arguments.export is None
    run = Run(arguments.out, arguments.seed, Shape(), told(Schedule(), arguments), compiled=compiled)
    carry_out(
        run,
        arguments,
        train=lambda report: run.train(arguments.minutes, report, fit=arguments.fit),
        export=partial(export, run),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
