"""The memory sum as parts and as a bar: whatever the numbers, the parts add up and the bar keeps its width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.cli.memory_view import bar_widths, memory_parts

MIB = 2**20


def engine(kv_bytes: int, running: int = 0, idle: int = 0, **terms: int) -> dict[str, object]:
    return {
        "kv": {"running_bytes": running, "idle_bytes": idle},
        "memory": {"kv_bytes": kv_bytes, "terms": terms},
    }


def test_the_parts_are_what_the_machine_has_to_give() -> None:
    parts = memory_parts(
        engine(
            700 * MIB, running=100 * MIB, idle=50 * MIB, headroom=1000 * MIB, held=50 * MIB, weights_mapped=-100 * MIB,
            weights_heap=-50 * MIB, activations=0, reserve=-200 * MIB,
        )
    )  # fmt: skip
    sizes = {part.name: part.count_bytes // MIB for part in parts}
    assert sizes == {"weights": 150, "KV running": 100, "KV idle": 50, "KV free": 550, "reserve for the box": 200}
    assert sum(sizes.values()) == 1000 + 50


def test_a_ceiling_of_the_owners_is_shown_as_kept_back() -> None:
    parts = memory_parts(engine(256 * MIB, headroom=1000 * MIB, reserve=-200 * MIB, kv_ceiling=-544 * MIB))
    assert {part.name: part.count_bytes // MIB for part in parts}["kept back by settings"] == 544
    assert sum(part.count_bytes for part in parts) == 1000 * MIB


def test_kv_above_a_budget_that_shrank_leaves_none_free_and_not_less() -> None:
    parts = memory_parts(engine(10 * MIB, running=30 * MIB, headroom=40 * MIB))
    assert {part.name: part.count_bytes for part in parts}["KV free"] == 0


def test_before_the_engine_has_spoken_there_is_nothing_to_show() -> None:
    assert memory_parts({}) == []
    assert memory_parts({"kv": {}, "memory": {}}) == []


@given(st.lists(st.integers(0, 2**50), min_size=1, max_size=8), st.integers(8, 200))
def test_a_bar_keeps_its_width_and_shows_all_there_is(counts: list[int], width: int) -> None:
    widths = bar_widths(counts, width)
    assert sum(widths) == (width if sum(counts) else 0)
    for count, shown in zip(counts, widths, strict=True):
        assert (shown > 0) == (count > 0)
