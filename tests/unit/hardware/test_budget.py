"""The KV budget is a sum that a person can check."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.hardware.budget import DevicePool, Reserve, Weights, kv_budget
from edged.hardware.cgroup import CgroupMemory
from edged.hardware.memory import MemoryReading

pytestmark = pytest.mark.aarch64

MIB, GIB = 1 << 20, 1 << 30
BOARD_8G = MemoryReading(total_bytes=8 * GIB, available_bytes=7 * GIB, source="test")
PHI_MINI = Weights(mapped_bytes=2 * GIB, heap_bytes=200 * MIB)
SIZES = st.integers(0, 64 * GIB)


def test_a_board_of_8_gib() -> None:
    budget = kv_budget(BOARD_8G, weights=PHI_MINI, activation_bytes=100 * MIB)
    assert {term.name: term.signed_bytes for term in budget.terms} == {
        "headroom": 7 * GIB,
        "held": 0,
        "weights_mapped": -2 * GIB,
        "weights_heap": -200 * MIB,
        "activations": -100 * MIB,
        "reserve": -int(8 * GIB * 0.10),
    }
    assert budget.kv_bytes == 5 * GIB - 300 * MIB - int(8 * GIB * 0.10)
    assert budget.fits
    assert (budget.binding, budget.pool) == ("machine", "host")


def test_the_reserve_is_never_less_than_half_a_gibibyte() -> None:
    small = MemoryReading(total_bytes=2 * GIB, available_bytes=GIB, source="test")
    assert kv_budget(small, weights=Weights(0)).kv_bytes == 512 * MIB


def test_loading_the_weights_does_not_change_the_budget() -> None:
    """Heap comes out of MemAvailable and goes into `held`; mapped weights are in neither."""
    before = kv_budget(BOARD_8G, weights=PHI_MINI)
    loaded = MemoryReading(8 * GIB, 7 * GIB - 200 * MIB - 50 * MIB, "test")
    after = kv_budget(loaded, weights=PHI_MINI, held_bytes=200 * MIB + 50 * MIB)
    assert after.kv_bytes == before.kv_bytes


def test_a_limit_smaller_than_the_weights_says_how_much_is_missing() -> None:
    group = CgroupMemory("/sys/fs/cgroup/edged", 2, limit_bytes=2 * GIB, used_bytes=0)
    budget = kv_budget(MemoryReading(8 * GIB, 7 * GIB, "test", (group,)), weights=PHI_MINI)
    assert not budget.fits
    assert budget.kv_bytes == 0
    assert budget.missing_bytes == 200 * MIB + 512 * MIB
    assert budget.binding == "/sys/fs/cgroup/edged"


def test_ceilings_lower_the_budget_and_are_named() -> None:
    both = kv_budget(BOARD_8G, weights=PHI_MINI, total_ceiling_bytes=4 * GIB, kv_ceiling_bytes=GIB)
    assert (both.kv_bytes, both.binding) == (GIB, "kv_ceiling")
    total = kv_budget(BOARD_8G, weights=PHI_MINI, total_ceiling_bytes=3 * GIB, kv_ceiling_bytes=GIB)
    assert (total.kv_bytes, total.binding) == (GIB - 200 * MIB, "total_ceiling")
    too_low = kv_budget(BOARD_8G, weights=PHI_MINI, total_ceiling_bytes=2 * GIB)
    assert (too_low.kv_bytes, too_low.missing_bytes) == (0, 200 * MIB)


def test_unified_memory_is_one_pool_and_is_not_added() -> None:
    jetson = DevicePool("cuda", total_bytes=8 * GIB, free_bytes=3 * GIB, unified=True)
    assert kv_budget(BOARD_8G, weights=PHI_MINI, device=jetson) == kv_budget(BOARD_8G, weights=PHI_MINI)


def test_a_device_with_memory_of_its_own_holds_everything() -> None:
    card = DevicePool("cuda", total_bytes=12 * GIB, free_bytes=11 * GIB)
    budget = kv_budget(BOARD_8G, weights=PHI_MINI, device=card)
    assert budget.pool == budget.binding == "cuda"
    assert budget.kv_bytes == 11 * GIB - PHI_MINI.total_bytes - int(12 * GIB * 0.10)


@given(SIZES, SIZES, SIZES, SIZES, SIZES, st.none() | SIZES, st.none() | SIZES, st.floats(0, 1))
def test_the_terms_always_add_up_and_ceilings_hold(
    total: int, available: int, mapped: int, heap: int, held: int, ceiling: int | None, kv: int | None, share: float
) -> None:
    budget = kv_budget(
        MemoryReading(total, min(available, total), "test"),
        weights=Weights(mapped, heap),
        held_bytes=held,
        reserve=Reserve(0, share),
        total_ceiling_bytes=ceiling,
        kv_ceiling_bytes=kv,
    )
    assert sum(term.signed_bytes for term in budget.terms) == budget.kv_bytes - budget.missing_bytes
    assert 0 in (budget.kv_bytes, budget.missing_bytes)
    assert kv is None or budget.kv_bytes <= kv
    assert ceiling is None or budget.kv_bytes <= max(0, ceiling - mapped - heap)
