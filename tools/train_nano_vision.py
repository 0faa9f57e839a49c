#!/usr/bin/env python3
"""Trains the nano vision model that edged ships, from generated scenes, and exports it.

Needs the packages of the extra "train" (torch, transformers, onnx_ir ...) and Pillow. A run lives in a folder (--out)
and is resumable: call it in parts until it says that the schedule is done, then export.

    tools/train_nano_vision.py --out build/vision --minutes 30                  # start
    tools/train_nano_vision.py --out build/vision --minutes 30 --resume         # go on, as often as needed
    tools/train_nano_vision.py --out build/vision --export models/nano-vision   # int4 ONNX
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

_TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(_TOOLS.parent))
sys.path.insert(0, str(_TOOLS))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--minutes", type=float, default=30.0, help="train at most so long in this call (default 30)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    parser.add_argument("--steps", type=int, help="length of the schedule (default: that of nano_vision/plan.py)")
    parser.add_argument("--decay-steps", type=int, help="length of the decay at its end, with int4 rounding")
    parser.add_argument("--fit", action="store_true", help="make the schedule end with --minutes, at the pace found")
    parser.add_argument("--seed", type=int, default=7, help="seed of data and weights (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile (no C++ compiler needed)")
    parser.add_argument("--export", type=Path, metavar="DIR", help="do not train: write the checkpoint as ONNX to DIR")
    parser.add_argument("--precision", choices=("int4", "fp32"), default="int4", help="of the decoder (default int4)")
    return parser.parse_args()


def main() -> int:
    """Train or export as the arguments say. Exit code 0, or 2 for a wrong call."""
    arguments = _arguments()
    import torch

    from nano_vision.plan import Schedule, Shape
    from nano_vision.training import Run

    torch.set_num_threads(arguments.threads)
    schedule = Schedule()
    if arguments.steps is not None:
        schedule = replace(schedule, steps=arguments.steps)
    if arguments.decay_steps is not None:
        schedule = replace(schedule, decay_steps=arguments.decay_steps)
    has_checkpoint = (arguments.out / "checkpoint.pt").exists()
    if arguments.resume and not has_checkpoint:
        print(f"no checkpoint in {arguments.out}: start without --resume", file=sys.stderr)
        return 2
    if has_checkpoint and not arguments.resume and arguments.export is None:
        print(f"{arguments.out} holds a run already: add --resume or choose another folder", file=sys.stderr)
        return 2
    compiled = not arguments.no_compile and arguments.export is None
    run = Run(arguments.out, arguments.seed, Shape(), schedule, compiled=compiled)
    if has_checkpoint:
        run.resume()
    if arguments.export is not None:
        from nano_vision.export import export

        export(run, arguments.export, arguments.precision)
        print(f"step {run.step} written to {arguments.export}")
        return 0
    done = run.train(arguments.minutes, lambda line: print(line, flush=True), fit=arguments.fit)
    print("schedule done" if done else f"stopped at step {run.step}: go on with --resume")
    return 0


if __name__ == "__main__":
    sys.exit(main())
