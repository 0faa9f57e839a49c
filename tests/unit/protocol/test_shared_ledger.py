"""The ledger that engines share: rows, and a lock that its holder's death gives back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from edged.protocol.shared_ledger import MAX_ROWS, Row, SharedLedger

HOLD = """
import sys, time
from edged.protocol.shared_ledger import Row, SharedLedger
ledger = SharedLedger(int(sys.argv[1]))
with ledger.locked(10.0) as had:
    ledger.write(1, Row(99, 5, 6, 7, 8))
    print(had, flush=True)
    sys.stdin.read()
"""


def test_rows_are_taken_read_and_cleared() -> None:
    ledger = SharedLedger.create()
    assert ledger.rows() == []
    rows = [Row(10, 1, 2, 3), Row(11, 4, 5, 6, 9, pool=1, at_once=True)]
    for row in rows:
        ledger.write(ledger.free_row(), row)
    assert ledger.rows() == rows
    assert ledger.rows(but=0) == rows[1:]
    ledger.clear(0)
    assert ledger.free_row() == 0
    for number in range(MAX_ROWS):
        ledger.write(number, Row(1, 0, 0))
    with pytest.raises(OSError, match="too many engines"):
        ledger.free_row()


def test_one_process_at_a_time_decides_and_a_dead_one_holds_nobody_up() -> None:
    ledger = SharedLedger.create()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(ledger.fd)],
        pass_fds=(ledger.fd,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert ledger.rows() == [Row(99, 5, 6, 7, 8)]  # the same memory
        with ledger.locked(0.02) as had:
            assert not had
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
        with ledger.locked(5.0) as had:
            assert had
