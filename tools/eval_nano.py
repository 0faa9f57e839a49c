#!/usr/bin/env python3
"""Scores the nano model on held-out cases: exact match of the whole greedy answer, per skill.

Needs onnxruntime-genai only. The cases are combinations that training never draws (see nano/world.py) and are the same
on every run with the same --seed.

    tools/eval_nano.py                                              # models/nano, 400 cases of each skill
    tools/eval_nano.py --fp32 build/nano-fp32                       # beside the fp32 export of the same weights
    tools/eval_nano.py --json --bar 95                              # exit code 1 when commands, readings or follow-ups
                                                                    # of the int4 model are below 95 %
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from nano.golden import golden_list
from nano.scoring import Score, held_out_cases, open_model, score_cases

_BARRED = ("commands", "readings", "follow_ups")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = Path(__file__).resolve().parent.parent / "models" / "nano"
    parser.add_argument("--model", type=Path, default=shipped, help="folder of the int4 model (default models/nano)")
    parser.add_argument("--fp32", type=Path, help="folder of the fp32 export, scored beside it")
    parser.add_argument("--count", type=int, default=400, help="cases per skill (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="which held-out cases (default 0)")
    parser.add_argument("--bar", type=float, help="least percent that --model must reach on each skill but 'about'")
    parser.add_argument("--misses", type=int, default=0, metavar="N", help="show so many wrong answers of --model")
    parser.add_argument("--write-golden", type=Path, metavar="FILE", help="do not score: write the golden prompts")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    return parser.parse_args()


def _table(scores: dict[str, Score]) -> str:
    names = list(scores)
    first = scores[names[0]]
    rows = [f"{'':32}" + "".join(f"{name:>9}" for name in names)]
    for skill in first.by_skill:
        rows.append(f"{skill:32}" + "".join(f"{scores[name].by_skill[skill]:8.1f}%" for name in names))
    for kind, (_, count) in first.by_kind.items():
        cells = "".join(f"{scores[name].by_kind[kind][0]:8.1f}%" for name in names)
        rows.append(f"  {kind:30}{cells}  of {count}")
    return "\n".join(rows)


def main() -> int:
    """Score and print. Exit code 0, 1 below the bar, 2 when a folder is no model."""
    arguments = _arguments()
    folders = {"int4": arguments.model} | ({"fp32": arguments.fp32} if arguments.fp32 else {})
    for folder in folders.values():
        if not (folder / "genai_config.json").is_file():
            print(f"{folder} holds no genai_config.json: not a model folder", file=sys.stderr)
            return 2
    if arguments.write_golden:
        entries = golden_list(open_model(arguments.model))
        arguments.write_golden.write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{len(entries)} prompts written to {arguments.write_golden}")
        return 0
    cases = held_out_cases(arguments.count, arguments.seed)
    scores = {name: score_cases(open_model(folder), cases) for name, folder in folders.items()}
    shown = scores["int4"].misses[: arguments.misses]
    if arguments.json:
        content = {
            name: {
                "by_skill": score.by_skill,
                "by_kind": {kind: {"percent": p, "cases": n} for kind, (p, n) in score.by_kind.items()},
            }
            for name, score in scores.items()
        }
        print(
            json.dumps(
                {
                    "count": arguments.count,
                    "seed": arguments.seed,
                    "scores": content,
                    "misses": [asdict(m) for m in shown],
                }
            )
        )
    else:
        print(_table(scores))
        for miss in shown:
            print(f"\n[{miss.kind}] {miss.prompt[-1]['content']}\n  expected: {miss.expected}\n  got:      {miss.got}")
    below = arguments.bar is not None and any(scores["int4"].by_skill[skill] < arguments.bar for skill in _BARRED)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
