#!/usr/bin/env python3
"""Trains the digit classifier that edged ships, and writes it as int8 ONNX.

Needs the packages of the extra "digits" (scikit-learn, torch, onnx). A minute or two on two cores.

    tools/train_digits.py --out models/digits
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))


def main() -> int:
    """Train on the train part, quantize with ranges seen there, write OUT/model.onnx."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that gets model.onnx")
    parser.add_argument("--seed", type=int, default=7, help="of weights, order and changes (default 7)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    arguments = parser.parse_args()
    import torch

    from digits.data import load_split
    from digits.export import float_graph, write_int8
    from digits.training import train, weights_of

    torch.set_num_threads(arguments.threads)
    part, _ = load_split()
    weights = weights_of(train(part, arguments.seed))
    arguments.out.mkdir(parents=True, exist_ok=True)
    target = arguments.out / "model.onnx"
    write_int8(float_graph(weights), part.images, target)
    parameters = sum(array.size for array in weights.values())
    print(f"{target}: {parameters} parameters, {target.stat().st_size} bytes; tools/eval_digits.py measures it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
