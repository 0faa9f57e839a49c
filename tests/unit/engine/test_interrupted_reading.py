"""A long slice that nobody wants any more is ended inside the native call, and the slot goes on from where it was."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from itertools import chain, repeat

import numpy as np
import pytest

from edged.engine.backends.base import Interrupted
from edged.engine.load import Loaded

BEHIND = [10 + at % 200 for at in range(100)]
LONG = [10 + at * 7 % 400 for at in range(2977)]  # the last part of it is read apart, lest a row be alone in a tile
ALL = len(BEHIND) + len(LONG)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Memory must come back by itself: cycles would keep gigabytes of KV until the collector happens to run."""
    gc.disable()
    yield
    gc.enable()


def test_what_was_read_before_is_still_there_and_is_gone_on_from(nano: Loaded) -> None:
    backend = nano.backend
    whole = backend.open_slot(ALL + 1)
    backend.prefill(whole, BEHIND)
    backend.prefill(whole, LONG, lambda: False)
    expected = whole.generator.get_logits()  # type: ignore[attr-defined]
    slot = backend.open_slot(ALL + 1)
    backend.prefill(slot, BEHIND)
    for looks in (0, 1, 3):
        answers = chain(repeat(False, looks), repeat(True))
        with pytest.raises(Interrupted):
            backend.prefill(slot, LONG, lambda answers=answers: next(answers))  # type: ignore[misc]
        assert slot.tokens == BEHIND
        assert slot.generator.token_count() == len(BEHIND)  # type: ignore[attr-defined]
    assert backend.failures_in_a_row == 0
    backend.prefill(slot, LONG)
    assert np.array_equal(slot.generator.get_logits(), expected)  # type: ignore[attr-defined]
    backend.close_slot(slot)
    backend.close_slot(whole)


def test_its_memory_is_free_when_the_slot_is_closed(nano: Loaded, no_collector: None) -> None:
    slot = nano.backend.open_slot(ALL + 1)
    try:
        nano.backend.prefill(slot, LONG, lambda: True)
    except Interrupted:
        ended = True
    assert ended
    generator = weakref.ref(slot.generator)  # type: ignore[attr-defined]
    nano.backend.close_slot(slot)
    assert generator() is None


def test_a_failure_during_a_long_slice_is_a_failure(nano: Loaded, no_collector: None) -> None:
    slot = nano.backend.open_slot(len(BEHIND))
    try:
        nano.backend.prefill(slot, LONG, lambda: False)  # more than the slot holds
    except RuntimeError:
        failed = True
    assert failed
    assert nano.backend.failures_in_a_row == 1
    generator = weakref.ref(slot.generator)  # type: ignore[attr-defined]
    nano.backend.close_slot(slot)
    assert generator() is None
    again = nano.backend.open_slot(len(BEHIND))
    nano.backend.prefill(again, BEHIND)
    assert nano.backend.failures_in_a_row == 0
    nano.backend.close_slot(again)
