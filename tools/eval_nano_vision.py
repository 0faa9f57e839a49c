#!/usr/bin/env python3
"""Scores the nano vision model on held-out scenes: exact match of the whole greedy answer, per skill.

Needs onnxruntime-genai, NumPy and Pillow. The scenes are ones that training never draws (see nano_vision/scenes.py) and
are the same on every run with the same --seed.

    tools/eval_nano_vision.py                        # models/nano-vision, 300 cases of each skill
    tools/eval_nano_vision.py --misses 20            # and some wrong answers
    tools/eval_nano_vision.py --json --bars          # exit code 1 when a skill is below its bar
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from nano_vision.scoring import open_model, score

SHIPPED = Path(__file__).resolve().parent.parent / "models" / "nano-vision"
BARS = {"describe": 90.0, "count": 90.0, "read": 95.0, "compare": 85.0}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED, help="folder (default models/nano-vision)")
    parser.add_argument("--count", type=int, default=300, help="cases per skill (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="which held-out cases (default 0)")
    parser.add_argument("--bars", action="store_true", help="exit code 1 when a skill is below its bar")
    parser.add_argument("--misses", type=int, default=0, metavar="N", help="show so many wrong answers")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser.parse_args()


def main() -> int:
    """Score and print. Exit code 0, 1 below a bar, 2 when the folder is no model."""
    arguments = _arguments()
    if not (arguments.model / "genai_config.json").is_file():
        print(f"{arguments.model} holds no genai_config.json: not a model folder", file=sys.stderr)
        return 2
    scores, misses = score(open_model(arguments.model), arguments.count, arguments.seed)
    below = [skill for skill, bar in BARS.items() if scores[skill] < bar]
    if arguments.json:
        shown = [asdict(miss) for miss in misses[: arguments.misses]]
        print(json.dumps({"count": arguments.count, "seed": arguments.seed, "scores": scores, "misses": shown}))
    else:
        for skill, percent in scores.items():
            bar = f"bar {BARS[skill]:.0f} %" + (", missed" if skill in below else "") if skill in BARS else ""
            print(f"{skill:10}{percent:6.1f} %   {bar}")
        for miss in misses[: arguments.misses]:
            print(f"\n[{miss.skill}] {miss.question}\n  expected: {miss.expected}\n  got:      {miss.got}")
    return 1 if arguments.bars and below else 0


if __name__ == "__main__":
    sys.exit(main())
