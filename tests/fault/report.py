"""What the long fault runs share: arguments in, one JSON summary out, exit code 0 when nothing failed."""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any


def parser(description: str, *, count: int | None = None, seconds: float | None = None) -> argparse.ArgumentParser:
    """Arguments `--count` and `--seconds`, each with its default; both bound the run."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    if count is not None:
        made.add_argument("--count", type=int, default=count, help="how many")
    if seconds is not None:
        made.add_argument("--seconds", type=float, default=seconds, help="stop after this long")
    return made


def many_descriptors() -> None:
    """Raise the soft limit to the hard one, as the daemon does."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def finish(name: str, started_s: float, failures: list[str], **figures: Any) -> int:
    """Print the summary; the exit code."""
    summary = {"run": name, "seconds": round(time.monotonic() - started_s, 1), **figures, "failures": failures[:20]}
    print(json.dumps(summary, indent=2))
    return 1 if failures else 0


def spread(values: list[float]) -> dict[str, float]:
    """Median, 95th percentile and maximum, seconds."""
    if not values:
        return {}
    ordered = sorted(values)
    return {
        "median_s": round(ordered[len(ordered) // 2], 4),
        "p95_s": round(ordered[int(len(ordered) * 0.95)], 4),
        "max_s": round(ordered[-1], 4),
    }
