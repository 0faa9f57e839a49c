"""`python -m edged.update`: one updater run. JSON settings on standard input, JSON reports on standard output.

Exit status: 0 staged, up to date or waiting; 1 failed (the last line says why); 2 wrong use; 75 another one is at work.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from types import FrameType

from edged.errors import OwnerError
from edged.update.errors import TooSlow, UpdateBusy
from edged.update.report import Report
from edged.update.settings import read_settings
from edged.update.updater import run

BUSY = 75  # EX_TEMPFAIL of sysexits.h


def main() -> int:
    if len(sys.argv) > 1:
        print((__doc__ or "").strip(), file=sys.stderr)
        return 0 if sys.argv[1] in ("-h", "--help") else 2
    try:
        settings = read_settings(sys.stdin.buffer.read())
    except OwnerError as error:
        print(f"edged: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, settings.whole_limit_s)
    try:
        report = run(settings, tell=_tell)
    except UpdateBusy as error:
        print(f"edged: {error}", file=sys.stderr)
        return BUSY
    except OwnerError as error:
        print(f"edged: {error}", file=sys.stderr)
        return 1
    return 1 if report.phase == "failed" else 0


def _too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TooSlow("the update took longer than it may as a whole; the next one goes on where it was")


def _tell(report: Report) -> None:
    print(json.dumps(asdict(report)), flush=True)


if __name__ == "__main__":
    sys.exit(main())
