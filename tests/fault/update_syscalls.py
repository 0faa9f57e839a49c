#!/usr/bin/env python3
"""Kills the process, fills the disk or breaks it at every file system call of an update; nothing may be left half done.

After each fault the old version or the new one is active and whole, and a rerun without the fault succeeds. Needs
strace and the right to trace. Exit codes: 0 all held, 1 something broke, 2 wrong usage, 77 cannot run here.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import slot_scenarios
import strace_faults
import update_scenarios

SCENARIOS = [*slot_scenarios.SCENARIOS, *update_scenarios.SCENARIOS]


def main(argv: list[str] | None = None) -> int:
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--scenario", choices=list(scenarios), action="append", help="one of them (all)")
    parser.add_argument("--kinds", default="KILL,ENOSPC,EIO", help="comma-separated (KILL,ENOSPC,EIO)")
    parser.add_argument("--every", type=int, default=1, help="only every n-th call (1)")
    parser.add_argument("--call", action="append", default=[], help="only at this system call, such as fsync; several")
    parser.add_argument("--limit-s", type=float, default=1800.0, help="give up after this many seconds a scenario")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(argv)
    if reason := strace_faults.why_not():
        print(json.dumps({"skipped": reason}) if args.json else f"skipped: {reason}")
        return 77
    kinds = list(strace_faults.chosen(args.kinds))
    chosen = [scenarios[name] for name in args.scenario or scenarios]
    how = {"every": max(1, args.every), "limit_s": args.limit_s, "only": frozenset(args.call)}
    tallies = [strace_faults.run(one, kinds, **how) for one in chosen]
    return strace_faults.summary(tallies, as_json=args.json)


if __name__ == "__main__":
    sys.exit(main())
