"""A provider that was chosen and fails when it matters: the next best takes over, loudly, and the failure is kept.

The box is told that OpenVINO was proved here. The library at hand does not have it: loading on it fails for real.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from edged.hardware.candidates import CANDIDATES
from edged.hardware.findings import Findings, find_out
from edged.hardware.packages import Found
from edged.hardware.providers import ProviderReport, spec_of
from edged.hardware.trial_messages import SliceRate
from edged.hardware.trial_verdict import Verdict
from edged.hardware.tune import Goal, Row, Setting
from edged.hardware.tune_table import Table, model_key, recall, remember
from tests.integration.raw import Daemon, Peer, chat

BROKEN = "openvino-cpu"


@pytest.fixture
def state(tmp_path: Path) -> tuple[Path, Findings]:
    """A state directory that believes in OpenVINO, and what it knows of this box."""
    folder = tmp_path / "state"
    folder.mkdir()

    def believe(*_: Any) -> tuple[ProviderReport, ...]:
        reports = []
        for candidate in CANDIDATES:
            spec = spec_of(candidate, Found(candidate.key, "1.0"))
            if candidate.key in ("cpu", BROKEN):
                reports.append(ProviderReport(candidate, "", "a package", spec, None, None))
        return tuple(reports)

    return folder, find_out(folder, examine_providers=believe)


def measured(provider: str, decode_tps: float) -> Row:
    """A row of a table."""
    slices = (SliceRate(64, 100.0, 0.64),)
    return Row(Setting(provider), Verdict.OK, slices=slices, decode_tps=decode_tps, peak_bytes=1, cpu_s_per_token=0.1)


def failures(state: Path, found: Findings, model: Path) -> list[tuple[str, str]]:
    table = recall(state, model_key(model), found.fingerprint)
    return [(failure.provider, failure.reason) for failure in table.failures] if table else []


def test_what_was_measured_best_and_cannot_load_gives_way_to_the_next_best(
    state: tuple[Path, Findings], nano: Path
) -> None:
    folder, found = state
    rows = (measured(BROKEN, 100.0), measured("cpu", 10.0))
    remember(folder, Table("nano", model_key(nano), found.fingerprint, Goal.LATENCY, time.time(), rows))
    with Daemon(nano, state_dir=str(folder), provider="auto") as daemon:
        with Peer(daemon.ready().endpoint) as peer:
            assert peer.ask("chat", **chat("hello", max_tokens=2))["ev"] == "done"
        selection = daemon.model()["selection"]
        assert (selection["got"], selection["fell_back"]) == ("cpu", True)
        assert [other["provider"] for other in selection["passed_over"]] == [BROKEN]
        assert daemon.model()["restarts"] == 0
        assert f"provider failed model=nano provider={BROKEN}" in daemon.log()
    ((provider, reason),) = failures(folder, found, nano)
    assert provider == BROKEN
    assert reason
    with Daemon(nano, state_dir=str(folder), provider="auto") as daemon:  # remembered: not tried again
        assert daemon.ready().model()["selection"]["got"] == "cpu"
        assert "provider failed" not in daemon.log()
        assert reason[:40] in daemon.model()["selection"]["why"]


def test_strict_refuses_rather_than_run_on_another(state: tuple[Path, Findings], nano: Path) -> None:
    folder, found = state
    with Daemon(nano, state_dir=str(folder), provider=BROKEN, strict_provider=True) as daemon:
        daemon.until(daemon.socket.exists, "the socket")
        daemon.until(lambda: daemon.model()["state"] == "failed", "the refusal")
        assert "strict_provider refuses" in daemon.model()["reason"]
    assert failures(folder, found, nano) == []


def test_a_model_that_no_provider_can_load_is_nobodys_failure(
    state: tuple[Path, Findings], nano: Path, tmp_path: Path
) -> None:
    folder, found = state
    model = tmp_path / "model"
    model.mkdir()
    for file in nano.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (model / "tokenizer.json").write_text("{}")
    with Daemon(model, state_dir=str(folder), provider=BROKEN) as daemon:
        daemon.until(daemon.socket.exists, "the socket")
        daemon.until(lambda: daemon.model()["state"] == "failed", "the model to be refused")
    assert failures(folder, found, model) == []


def test_engines_that_end_again_and_again_are_blamed_on_their_provider(
    state: tuple[Path, Findings], nano: Path
) -> None:
    """Its front counts; the CPU itself is never given up, for there is nothing to go to."""
    folder, found = state
    with Daemon(nano, state_dir=str(folder), provider="cpu") as daemon:
        for _ in range(4):
            pid = daemon.engine_pid()
            os.kill(pid, signal.SIGKILL)
            daemon.until(lambda pid=pid: daemon.model().get("pid") != pid, "another engine")
        assert daemon.ready().model()["selection"]["got"] == "cpu"
    assert failures(folder, found, nano) == []


@pytest.mark.slow
def test_a_first_load_measures_where_the_owner_wants_it_and_several_providers_work(
    state: tuple[Path, Findings], nano: Path
) -> None:
    folder, found = state
    with Daemon(nano, state_dir=str(folder), provider="auto", measure_at_load=True) as daemon:
        daemon.until(daemon.socket.exists, "the socket")
        daemon.until(lambda: daemon.model()["state"] in ("ready", "failed"), "the measurement", timeout_s=300)
        assert daemon.model()["selection"]["got"] == "cpu"
        assert "not measured yet" not in daemon.model()["selection"]["why"]
    table = recall(folder, model_key(nano), found.fingerprint)
    assert table is not None
    assert {row.setting.provider for row in table.rows} == {"cpu", BROKEN}
