"""The short form of tests/fault/memory_cgroup.py; skipped with the reason where no memory cgroup can be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="tools/make_synthetic.py needs the extra `synthetic`")

from tests.fault import memory_cgroup
from tests.fault.memory_group import NotPossible

LIMIT_BYTES = 1280 * 2**20


def held(run: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = run(*args, **kwargs)
    except NotPossible as error:
        pytest.skip(str(error))
    assert found["problems"] == [], found
    assert found["oom_kills"] == 0
    return found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 KiB of KV a token, weights of a few MB."""
    return memory_cgroup.make_model(tmp_path_factory.mktemp("made"), "tiny", "--layers", "32", "--vocab", "512")


def test_twice_the_demand_is_queued_or_refused_and_nothing_is_killed(model: Path) -> None:
    found = held(memory_cgroup.overload, model, LIMIT_BYTES, seconds=5)
    assert found["demand_mib"] >= 2 * found["budget_mib"] > 0


def test_a_falling_limit_takes_idle_memory_back_and_stops_admission(model: Path) -> None:
    found = held(memory_cgroup.falling_limit, model, LIMIT_BYTES)
    assert found["idle_before_mib"] > 0


def test_a_limit_below_the_weights_refuses_the_load_with_numbers(tmp_path: Path) -> None:
    held(
        memory_cgroup.below_weights,
        memory_cgroup.make_model(tmp_path, "phi3.5-mini", "--layers", "2", "--vocab", "2048"),
    )
