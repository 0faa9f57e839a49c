"""The choice among measurements, its memory on disk, and the selection at start, on figures and on a real model."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import HardwareError
from edged.hardware.candidates import CANDIDATES, CPU_CANDIDATE
from edged.hardware.cpu import Cluster, Cpu
from edged.hardware.energy import EnergyMeter
from edged.hardware.packages import installed
from edged.hardware.provider_rules import Box, Refusal, Why
from edged.hardware.providers import ProviderReport, examine
from edged.hardware.selection import select
from edged.hardware.tree import Tree
from edged.hardware.trial_messages import ProviderSpec, SliceRate
from edged.hardware.trial_verdict import Verdict
from edged.hardware.tune import Goal, Row, Setting, choose, merged, next_step, thread_counts
from edged.hardware.tune_table import (
    FILE,
    MAX_TABLES,
    Failure,
    Table,
    model_key,
    read_tables,
    recall,
    record_failure,
    remember,
)
from edged.hardware.tuner import Bounds, Cores, Progress, tune
from edged.hardware.tuning import usable_cores, variant

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20


def row(provider: str = "cpu", **figures: object) -> Row:
    """A row that worked: 100 tok/s prefill, 10 tok/s decode, 100 MiB unless said."""
    prefill = float(figures.pop("prefill", 100.0))  # type: ignore[arg-type]
    threads = int(figures.pop("threads", 0))  # type: ignore[call-overload]
    usual: dict[str, object] = {"decode_tps": 10.0, "peak_bytes": 100 * MIB, "cpu_s_per_token": 0.1}
    slices = figures.pop("slices", (SliceRate(64, prefill, 64 / prefill),))
    return Row(Setting(provider, threads), Verdict.OK, slices=slices, **{**usual, **figures})  # type: ignore[arg-type]


def broken(provider: str, verdict: Verdict = Verdict.CRASHED) -> Row:
    return Row(Setting(provider), verdict, "SIGSEGV while in load")


def chosen(rows: list[Row], goal: Goal) -> str:
    choice = choose(rows, goal)
    assert choice is not None
    return choice.row.setting.provider


def test_each_goal_has_its_own_winner() -> None:
    rows = [
        row("fast-answer", prefill=100, decode_tps=20, cpu_s_per_token=0.2, peak_bytes=400 * MIB),
        row("fast-reader", prefill=400, decode_tps=8, cpu_s_per_token=0.3, peak_bytes=900 * MIB),
        row("small", prefill=50, decode_tps=5, cpu_s_per_token=0.25, peak_bytes=90 * MIB),
        row("frugal", prefill=60, decode_tps=6, cpu_s_per_token=0.05, peak_bytes=300 * MIB),
        broken("crasher"),
    ]
    assert {goal: chosen(rows, goal) for goal in Goal} == {
        Goal.LATENCY: "fast-answer",  # 256/100 + 64/20 = 5.8 s against 8.6 s
        Goal.THROUGHPUT: "fast-reader",  # 1024/400 + 64/8 = 10.6 s against 13.4 s
        Goal.MEMORY: "small",
        Goal.POWER: "frugal",
    }


def test_power_goes_by_the_meter_only_where_every_row_was_metered() -> None:
    a = row("a", cpu_s_per_token=0.1, joules_per_token=9.0)
    b = row("b", cpu_s_per_token=0.2, joules_per_token=3.0)
    assert chosen([a, b], Goal.POWER) == "b"
    choice = choose([a, replace(b, joules_per_token=None)], Goal.POWER)
    assert choice is not None
    assert (choice.row, "no meter" in choice.why) == (a, True)


def test_a_tie_goes_to_the_setting_that_leaves_more_of_the_box() -> None:
    spinning = row("spinning", decode_tps=10.1, cpu_s_per_token=0.2)
    assert chosen([spinning, row("quiet", decode_tps=10.0, cpu_s_per_token=0.1)], Goal.LATENCY) == "quiet"
    assert chosen([spinning, row("slow", decode_tps=9.0, cpu_s_per_token=0.1)], Goal.LATENCY) == "spinning"


def test_nothing_that_failed_is_ever_chosen() -> None:
    assert choose([broken("a"), broken("b", Verdict.OUT_OF_MEMORY)], Goal.LATENCY) is None
    wrong = replace(row("liar", decode_tps=1000.0), verdict=Verdict.WRONG_ANSWER)
    assert chosen([wrong, row()], Goal.LATENCY) == "cpu"
    assert choose([row("gpu"), row()], Goal.LATENCY, failed=["gpu", "cpu"]) is None


def test_the_slice_is_the_shortest_of_the_fast_ones_within_half_a_second() -> None:
    rates = (SliceRate(16, 80, 0.2), SliceRate(64, 100, 0.4), SliceRate(128, 101, 0.49), SliceRate(256, 150, 1.7))
    assert row(slices=rates).slice.slice_tokens == 64
    assert row(slices=(SliceRate(16, 8, 2.0), SliceRate(64, 9, 7.0))).slice.slice_tokens == 16


def test_a_second_look_adds_slices_and_keeps_the_figures() -> None:
    first = row(prefill=100, wall_s=2.0)
    more = replace(first, slices=(SliceRate(16, 90, 0.2), SliceRate(64, 1, 9)), decode_tps=1.0, peak_bytes=200 * MIB)
    both = merged(first, more)
    assert [rate.slice_tokens for rate in both.slices] == [16, 64]
    assert (both.slices[1].prefill_tps, both.decode_tps, both.peak_bytes) == (100, 10.0, 200 * MIB)
    assert merged(first, broken("cpu")) == first


def drive(
    figures: Mapping[str, float], providers: list[str], cores: int, clusters: tuple[tuple[int, ...], ...]
) -> list[Row]:
    """Plays the tuner with figures in place of trials: `figures` holds decode rates by setting; -1 crashes."""
    rows: list[Row] = []
    sliced = False
    for _ in range(100):
        step = next_step(rows, providers, Goal.LATENCY, cores=cores, clusters=clusters, sliced=sliced)
        if step is None:
            return rows
        if any(one.setting == step.setting for one in rows):
            assert not sliced
            sliced = True
            continue
        rate = figures.get(str(step.setting), 1.0)
        new = replace(row(decode_tps=rate), setting=step.setting)
        rows.append(new if rate > 0 else replace(broken("x"), setting=step.setting))
    pytest.fail("never comes to an end")


def test_the_search_goes_from_knob_to_knob() -> None:
    figures = {"cpu": 8.0, "cpu, 3 threads": 9.0, "cpu, 3 threads, no spinning": 12.0}
    figures |= {"cpu, 2 threads, cores 2,3, no spinning": 15.0}
    rows = drive(figures, ["cpu", "gpu"], 4, ((2, 3), (0, 1)))
    assert [str(one.setting) for one in rows] == [
        "cpu",
        "gpu",
        "cpu, 4 threads",
        "cpu, 3 threads",
        "cpu, 2 threads",
        "cpu, 1 thread",
        "cpu, 3 threads, no spinning",
        "cpu, 2 threads, cores 2,3, no spinning",
        "cpu, 2 threads, cores 0,1, no spinning",
    ]
    choice = choose(rows, Goal.LATENCY)
    assert choice is not None
    assert choice.row.setting == Setting("cpu", 2, False, (2, 3))


@given(
    rates=st.lists(st.sampled_from([-1.0, 1.0, 2.0, 50.0]), min_size=20, max_size=20),
    cores=st.integers(1, 64),
    clusters=st.sampled_from([(), ((0, 1),), ((4, 5), (0, 1, 2, 3)), ((7,), (4, 5, 6), (0, 1, 2, 3))]),
)
def test_the_search_ends_whatever_is_measured_and_tries_nothing_twice(
    rates: list[float], cores: int, clusters: tuple[tuple[int, ...], ...]
) -> None:
    providers = ["cpu", "cuda", "webgpu"]
    names = [*providers, *(f"cpu, {n} threads" for n in range(2, 9)), "cpu, 1 thread", "cpu, 2 threads, no spinning"]
    rows = drive(dict(zip(names, rates, strict=False)), providers, cores, clusters)
    assert len({one.setting for one in rows}) == len(rows)
    assert len(rows) <= len(providers) + len(thread_counts(cores)) + 1 + len(clusters)


def report(key: str, *, usable: bool = True, wanted: str = "a device") -> ProviderReport:
    candidate = next(found for found in CANDIDATES if found.key == key)
    refusal = None if usable else Refusal(Why.NOT_INSTALLED, "not installed", candidate.mend)
    spec = ProviderSpec(key, candidate.ort_name, candidate.genai_name) if usable else None
    return ProviderReport(candidate, wanted, "package 1" if usable else "", spec, None, refusal)


def table(*rows: Row, **fields: object) -> Table:
    usual = {
        "model": "m",
        "model_key": "k",
        "fingerprint": "f",
        "goal": Goal.LATENCY,
        "measured_at_s": 1.0,
        "rows": rows,
    }
    return Table(**{**usual, **fields})  # type: ignore[arg-type]


TWO = [report("cpu"), report("openvino-cpu")]
MEASURED = table(row("cpu"), row("openvino-cpu", decode_tps=30.0), broken("webgpu"))


def test_auto_takes_what_was_measured_best() -> None:
    got = select("auto", TWO, MEASURED, strict=True)
    assert (got.got.key, got.slice_tokens, got.fell) == ("openvino-cpu", 64, False)
    assert "best for latency of 2 that worked" in got.why


def test_a_provider_that_failed_while_serving_is_passed_over_loudly() -> None:
    failed = replace(MEASURED, failures=(Failure("openvino-cpu", "SIGSEGV", 2.0),))
    got = select("auto", TWO, failed, strict=False)
    assert (got.got.key, got.fell) == ("cpu", True)
    assert "openvino-cpu failed while serving: SIGSEGV" in got.why
    assert ("openvino-cpu", "failed while serving: SIGSEGV") in got.passed_over


def test_what_was_wanted_and_cannot_be_had_is_said_or_refused() -> None:
    reports = [report("cpu"), report("cuda", usable=False)]
    got = select("cuda", reports, None, strict=False)
    assert (got.wanted, got.got.key, got.fell) == ("cuda", "cpu", True)
    assert "not installed" in got.why
    with pytest.raises(HardwareError, match=r"cuda: not installed; to mend: pip .* \(strict_provider"):
        select("cuda", reports, None, strict=True)


def test_a_wanted_provider_comes_with_its_own_best_setting() -> None:
    two = table(row("cpu", threads=2, decode_tps=11.0), row("cpu"), row("openvino-cpu", decode_tps=30.0))
    got = select("cpu", TWO, two, strict=True)
    assert (got.setting, got.fell) == (Setting("cpu", 2), False)
    assert select("cpu", TWO, None, strict=True).why.startswith("as wanted; not measured yet")


def test_a_provider_that_never_worked_on_this_model_is_not_taken_for_it() -> None:
    crashed = table(row("cpu"), broken("openvino-cpu", Verdict.OUT_OF_MEMORY))
    assert select("auto", TWO, crashed, strict=False).got.key == "cpu"
    with pytest.raises(HardwareError, match="out of memory"):
        select("openvino-cpu", TWO, crashed, strict=True)


def test_unmeasured_means_the_cpu_and_says_so() -> None:
    got = select("auto", TWO, None, strict=False)
    assert (got.got.key, got.slice_tokens) == ("cpu", None)
    assert "edged tune" in got.why


def test_a_name_that_is_no_provider_and_a_box_with_none_are_errors() -> None:
    with pytest.raises(HardwareError, match="choose auto or one of cpu, openvino-cpu"):
        select("tpu", TWO, None, strict=False)
    with pytest.raises(HardwareError, match="no usable execution provider: cpu: not installed"):
        select("auto", [report("cpu", usable=False)], None, strict=False)


def test_a_table_is_remembered_per_model_and_fingerprint(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert recall(state, "k", "f") is None
    remember(state, MEASURED)
    assert recall(state, "k", "f") == MEASURED
    assert recall(state, "k", "after a driver update") is None
    again = replace(MEASURED, fingerprint="after a driver update", rows=MEASURED.rows[:1])
    remember(state, again)
    assert read_tables(state) == (again,)
    assert sorted(path.name for path in state.iterdir()) == [f".{FILE}.lock", FILE]


def test_a_failure_is_kept_and_the_next_best_takes_over(tmp_path: Path) -> None:
    remember(tmp_path, MEASURED)
    record_failure(tmp_path, "m", "k", "f", Failure("openvino-cpu", "SIGSEGV", 2.0))
    kept = recall(tmp_path, "k", "f")
    assert kept is not None
    assert kept.failures == (Failure("openvino-cpu", "SIGSEGV", 2.0),)
    choice = kept.choice()
    assert choice is not None
    assert choice.row.setting.provider == "cpu"
    remember(tmp_path, MEASURED)
    assert read_tables(tmp_path)[0].failures == (), "measuring again is a new start"


def test_a_failure_of_a_model_that_was_never_measured_is_kept_too(tmp_path: Path) -> None:
    record_failure(tmp_path, "m", "k", "f", Failure("openvino-cpu", "SIGSEGV", 2.0))
    kept = recall(tmp_path, "k", "f")
    assert kept is not None
    assert (kept.model, kept.rows, kept.choice()) == ("m", (), None)
    got = select("openvino-cpu", TWO, kept, strict=False)
    assert (got.got.key, got.fell) == ("cpu", True)
    with pytest.raises(HardwareError, match="failed while serving"):
        select("openvino-cpu", TWO, kept, strict=True)


def test_where_the_only_provider_has_failed_it_serves_again_and_says_so() -> None:
    failed = table(row("cpu"), failures=(Failure("cpu", "SIGKILL", 2.0),))
    got = select("auto", [report("cpu")], failed, strict=True)
    assert (got.got.key, got.fell) == ("cpu", True)
    assert "cpu failed while serving: SIGKILL" in got.why


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99, "tables": []}', '{"format": 1, "tables": [{}]}'])
def test_a_file_that_cannot_be_read_is_measured_anew(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(text)
    assert read_tables(tmp_path) == ()
    assert "measured anew" in caplog.text
    remember(tmp_path, MEASURED)
    assert read_tables(tmp_path) == (MEASURED,)


def test_the_file_does_not_grow_without_end(tmp_path: Path) -> None:
    for number in range(MAX_TABLES + 3):
        remember(tmp_path, replace(MEASURED, model_key=str(number)))
    tables = read_tables(tmp_path)
    assert len(tables) == MAX_TABLES
    assert tables[0].model_key == str(MAX_TABLES + 2)


def test_a_disk_that_refuses_leaves_the_old_table_whole(tmp_path: Path) -> None:
    """In a process that may write no more than 100 bytes to a file: what ENOSPC looks like from here."""
    remember(tmp_path, MEASURED)
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from edged.hardware.tune_table import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "record_failure(Path(sys.argv[1]), 'm', 'k', 'f', Failure('cpu', 'x', 1.0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert "File too large" in done.stderr
    assert read_tables(tmp_path) == (MEASURED,)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{FILE}.lock", FILE]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "tiny"
    command = [sys.executable, str(ROOT / "tools/make_synthetic.py"), "tiny", str(out), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return out


def test_a_real_model_is_tuned_on_the_real_cpu(tiny: Path) -> None:
    """Children and figures are real; only the order of the steps and the shape of the table are certain."""
    said: list[Progress] = []
    reports = [one for one in examine(Box("x86_64"), installed()) if one.candidate == CPU_CANDIDATE or not one.usable]
    tuned = tune({"cpu": tiny}, reports, Goal.LATENCY, Cores(1), memory_bytes=1 << 30, progress=said.append)
    assert [progress.step.why for progress in said] == [
        "as the runtime sets it",
        "number of threads",
        "spinning",
        "slice size",
    ]
    measured = [one for one in tuned.rows if one.ok]
    assert len(measured) == 3
    assert all(one.agrees == one.compared == 4 for one in measured)
    assert tuned.choice is not None
    assert len(tuned.choice.row.slices) == 5
    assert not tuned.left_out
    one = table(*tuned.rows)
    assert Table.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_tuning_stops_when_its_time_is_up_and_says_what_it_left_out(tiny: Path) -> None:
    """A clock on which a minute passes whenever it is looked at."""
    reports = examine(Box("x86_64"), installed())[:1]
    minutes = itertools.count(0, 60)
    tuned = tune(
        {"cpu": tiny},
        reports,
        Goal.LATENCY,
        Cores(8),
        memory_bytes=1 << 30,
        bounds=Bounds(total_s=240.0),
        clock=lambda: next(minutes),
    )
    assert [str(one.setting) for one in tuned.rows] == ["cpu", "cpu, 8 threads"]
    assert tuned.choice is not None
    assert tuned.left_out == "cpu, 7 threads (number of threads) and what would follow: the 240 s were used up"


def test_a_model_over_the_ceiling_is_a_row_and_a_model_without_a_variant_too(tiny: Path) -> None:
    reports = examine(Box("x86_64"), installed())[:1]
    over = tune({"cpu": tiny}, reports, Goal.LATENCY, Cores(1), memory_bytes=20 * MIB)
    assert over.choice is None
    assert {one.verdict for one in over.rows} == {Verdict.OUT_OF_MEMORY}
    without = tune({"cuda": tiny}, reports, Goal.LATENCY, Cores(1), memory_bytes=1 << 30)
    assert [one.reason for one in without.rows] == ["the model has no variant for it"]


def test_a_model_has_the_same_key_wherever_it_lies_and_another_when_it_changes(tiny: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny, tmp_path / "copy"))
    assert model_key(copy) == model_key(tiny)
    config = json.loads((copy / "genai_config.json").read_text())
    config["search"]["top_k"] = 49
    (copy / "genai_config.json").write_text(json.dumps(config, indent=4))
    assert model_key(copy) != model_key(tiny)


def test_energy_from_a_counter_that_goes_round(tmp_path: Path) -> None:
    package = tmp_path / "sys/class/powercap/intel-rapl:0"
    for folder, count in ((package, 900), (tmp_path / "sys/class/powercap/intel-rapl:0:0", 500)):
        folder.mkdir(parents=True)
        (folder / "energy_uj").write_text(f"{count}000000\n")
    (package / "max_energy_range_uj").write_text("999999999\n")
    meter = EnergyMeter(Tree(tmp_path))
    assert (meter.name, meter.energy_j()) == ("RAPL", 0.0)
    (package / "energy_uj").write_text("50000000\n")
    assert meter.energy_j() == pytest.approx(150.0)


def test_energy_from_a_sensor_is_power_times_time(tmp_path: Path) -> None:
    sensor = tmp_path / "sys/class/hwmon/hwmon3"
    sensor.mkdir(parents=True)
    for name, text in (("name", "ina3221"), ("in1_label", "VDD_IN"), ("in1_input", "5000"), ("curr1_input", "2000")):
        (sensor / name).write_text(f"{text}\n")
    times = iter([0.0, 10.0, 12.0])
    meter = EnergyMeter(Tree(tmp_path), clock=lambda: next(times))
    assert (meter.name, meter.energy_j()) == ("INA", 100.0)
    (sensor / "curr1_input").write_text("4000\n")
    assert meter.energy_j() == 130.0


def test_no_meter_is_no_energy(tmp_path: Path) -> None:
    meter = EnergyMeter(Tree(tmp_path))
    assert (meter.name, meter.energy_j()) == ("", None)


@pytest.mark.parametrize(
    ("options", "expected"),
    [([], "cpu"), ([{"cuda": {"enable_cuda_graph": "0"}}], "cuda"), ([{"OpenVINO": {}}], "openvino")],
)
def test_the_variant_is_what_the_folder_was_made_for(options: list[object], expected: str) -> None:
    assert variant({"model": {"decoder": {"session_options": {"provider_options": options}}}}) == expected
    assert variant({}) == "cpu"


def test_cores_are_those_this_process_may_use() -> None:
    mine = sorted(os.sched_getaffinity(0))
    clusters = (Cluster("big", (mine[0], 5000)), Cluster("little", (5001,)))
    cpu = Cpu("x", "x86_64", cores=4096, threads=8192, usable=1, clusters=clusters, features={})
    assert usable_cores(cpu) == Cores(len(mine), ((mine[0],),))
