"""What other engines have promised counts, once: not again when they have taken it."""

from __future__ import annotations

from edged.engine.neighbours import Neighbours
from edged.protocol.shared_ledger import CARD, Row, SharedLedger

MIB = 2**20


def test_what_others_promised_counts_until_it_is_missing_from_the_free_memory() -> None:
    ledger, anonymous = SharedLedger.create(), {20: 300 * MIB}
    mine = Neighbours(ledger, 0, taken=lambda pid: anonymous[pid])
    mine.look()
    assert (mine.untouched_bytes(), mine.kv_bytes()) == (0, 0)
    ledger.write(1, Row(20, fixed_bytes=500 * MIB, kv_bytes=0))  # 200 MiB are a file mapping, or still loading
    mine.look()
    assert mine.untouched_bytes() == 200 * MIB
    ledger.write(1, Row(20, 500 * MIB, 64 * MIB, wanted_bytes=7))  # it booked KV after our reading
    assert (mine.untouched_bytes(), mine.kv_bytes(), mine.wanted_bytes()) == (264 * MIB, 64 * MIB, 7)
    anonymous[20] += 64 * MIB  # and wrote to it
    mine.look()
    assert mine.untouched_bytes() == 200 * MIB
    ledger.write(1, Row(20, 500 * MIB, 0))  # it gave the KV back; the reading does not have it yet
    assert mine.untouched_bytes() == 136 * MIB
    assert (mine.wanted_bytes(), mine.wanted_bytes(before_s=12.3)) == (0, 0)
    ledger.write(1, Row(20, 0, 0, wanted_bytes=7, wanted_us=12_000_000))
    assert (mine.wanted_bytes(), mine.wanted_bytes(before_s=12.3), mine.wanted_bytes(before_s=11.0)) == (7, 7, 0)
    for pid, comes_first in ((1, 7), (2**31, 0)):  # two at the same moment do not wait for each other
        ledger.write(1, Row(pid, 0, 0, wanted_bytes=7, wanted_us=12_000_000))
        assert mine.wanted_bytes(before_s=12.0) == comes_first
    ledger.clear(1)
    assert mine.untouched_bytes() == 0


def test_a_card_and_the_box_are_two_pools() -> None:
    ledger = SharedLedger.create()
    ledger.write(1, Row(20, 100 * MIB, 50 * MIB, pool=CARD, at_once=True))
    on_host, on_card = Neighbours(ledger, 0), Neighbours(ledger, 2)
    on_card.on_card = True
    assert (on_host.untouched_bytes(), on_host.kv_bytes()) == (0, 0)
    on_card.look()
    assert (on_card.untouched_bytes(), on_card.kv_bytes()) == (0, 50 * MIB)
    ledger.write(1, Row(20, 100 * MIB, 80 * MIB, pool=CARD, at_once=True))  # since our reading
    assert on_card.untouched_bytes() == 30 * MIB


def test_what_we_promise_is_written_for_the_others() -> None:
    ledger = SharedLedger.create()
    mine = Neighbours(ledger, 3)
    mine.fixed_bytes = 9
    mine.promise(4, 2, wanted_since_s=1.5)
    (row,) = ledger.rows()
    assert (row.fixed_bytes, row.kv_bytes, row.wanted_bytes, row.wanted_us) == (9, 4, 2, 1_500_000)
    assert mine.kv_bytes() == 0  # our own row is no neighbour


def test_alone_nobody_is_in_the_way() -> None:
    alone = Neighbours()
    alone.look()
    alone.promise(5)
    with alone.booking() as had:
        assert had
    assert (alone.untouched_bytes(), alone.kv_bytes(), alone.wanted_bytes()) == (0, 0, 0)
