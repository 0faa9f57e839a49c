"""The pulse: what the engine says is read whole, also while it is being written, and outlives it."""

from __future__ import annotations

import os
import struct
import threading

import pytest

from edged.protocol import pulse
from edged.protocol.pulse import Beat, PulseReader, PulseWriter

pytestmark = pytest.mark.aarch64


@pytest.fixture
def fd() -> int:
    return pulse.create()


def test_a_beat_is_read_as_it_was_written(fd: int) -> None:
    writer, reader = PulseWriter(fd), PulseReader(fd)
    assert reader.read().sequence == 0
    writer.beat(1.5, rid=77)
    beat = reader.read()
    assert (beat.sequence, beat.rid, beat.allowed_s) == (2, 77, 1.5)
    writer.beat(2.0)
    assert (reader.read().sequence, reader.read().rid) == (4, pulse.NO_REQUEST)
    os.close(fd)
    assert reader.read().sequence == 4  # the mapping outlives descriptor and writer
    reader.close()


def test_beats_are_never_torn(fd: int) -> None:
    """Each beat carries one number twice; a reader in another thread must never see two halves of different beats."""
    writer, reader = PulseWriter(fd), PulseReader(fd)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            writer.beat(float(number), rid=number)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        seen = set()
        for _ in range(20_000):
            beat = reader.read()
            if beat.sequence % 2 == 0:  # an odd one says itself that it was being written
                assert beat.rid == beat.allowed_s
            seen.add(beat.rid)
    finally:
        stop.set()
        thread.join()
    assert len(seen) > 1
    os.close(fd)


def test_a_beat_that_was_cut_off_is_returned_as_it_is(fd: int) -> None:
    writer, reader = PulseWriter(fd), PulseReader(fd)
    writer.beat(1.0, rid=5)
    os.pwrite(fd, struct.pack("<Q", 3), 0)  # killed between the two writes of the next beat
    beat = reader.read()
    assert (beat.sequence, beat.rid) == (3, 5)
    os.close(fd)


@pytest.mark.parametrize(("now_s", "overdue"), [(100.0, False), (110.0, False), (110.01, True), (130.0, True)], ids=str)
def test_the_floor_counts_when_little_was_announced(now_s: float, overdue: bool) -> None:
    assert Beat(2, 1, started_s=100.0, allowed_s=0.5).overdue(now_s, factor=3, floor_s=10) is overdue


@pytest.mark.parametrize(("now_s", "overdue"), [(110.01, False), (160.0, False), (160.01, True)], ids=str)
def test_what_was_announced_counts_when_it_is_much(now_s: float, overdue: bool) -> None:
    assert Beat(2, 1, started_s=100.0, allowed_s=20.0).overdue(now_s, factor=3, floor_s=10) is overdue
