"""`edged tune` and `edged providers` as an owner types them: a real model, real children, an empty state directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from edged.cli.providers_cmd import providers
from edged.cli.tune_cmd import page, tune
from edged.errors import ConfigError, EdgedError, HardwareError, ModelError
from edged.hardware.trial_messages import SliceRate
from edged.hardware.trial_verdict import Verdict
from edged.hardware.tune import Goal, Row, Setting
from edged.hardware.tune_table import Failure, Table

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "tiny"
    command = [sys.executable, str(ROOT / "tools/make_synthetic.py"), "tiny", str(out), "--quiet"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return out


def run(state: Path, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(tune)
    app.command()(providers)
    environment = {"EDGED_STATE_DIR": str(state), "EDGED_CONFIG": str(state / "none.toml")}
    return CliRunner().invoke(app, list(arguments), env=environment)


def error(result: Result) -> str:
    assert isinstance(result.exception, EdgedError), result.exception
    return str(result.exception)


def test_a_model_is_measured_shown_and_shown_again_without_measuring(tiny: Path, tmp_path: Path) -> None:
    first = run(tmp_path, "tune", str(tiny), "--goal", "memory", "--total-s", "60")
    assert first.exit_code == 0, first.output
    assert "(as the runtime sets it)" in first.stderr
    assert "chosen: cpu" in first.stdout
    assert "best for memory of" in first.stdout
    again = run(tmp_path, "tune", str(tiny), "--show")
    assert again.stdout == first.stdout
    assert again.stderr == ""
    (table,) = json.loads(run(tmp_path, "tune", "--show", "--json").stdout)
    assert table["choice"]["setting"]["provider"] == "cpu"
    assert Table.from_dict(table).model == "tiny"


def test_the_providers_page_tries_once_and_then_remembers(tmp_path: Path) -> None:
    first = run(tmp_path, "providers")
    assert "trying CPU" in first.stderr
    assert "cpu" in first.stdout
    again = run(tmp_path, "providers", "--json")
    assert again.stderr == ""
    assert json.loads(again.stdout)["providers"][0]["proof"]["verdict"] == "ok"
    assert "trying CPU" in run(tmp_path, "providers", "--fresh").stderr


def test_mistakes_are_one_sentence(tiny: Path, tmp_path: Path) -> None:
    assert isinstance(run(tmp_path, "tune", str(tiny), "--goal", "speed").exception, ConfigError)
    assert "name a model" in error(run(tmp_path, "tune"))
    assert isinstance(run(tmp_path, "tune", "nosuch").exception, ModelError)
    assert isinstance(run(tmp_path, "tune", "--show").exception, HardwareError)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert isinstance(run(tmp_path, "tune", str(empty)).exception, ModelError)


def test_a_model_no_provider_can_hold_ends_in_an_error_with_the_reasons_shown(tiny: Path, tmp_path: Path) -> None:
    result = run(tmp_path, "tune", str(tiny), "--memory-mib", "20")
    assert "no provider could run it" in error(result)
    assert "cpu: out of memory: took" in result.stdout
    assert "chosen: none" in result.stdout


def test_the_page_tells_what_failed_what_was_left_out_and_what_changed() -> None:
    good = Row(Setting("cpu"), Verdict.OK, slices=(SliceRate(64, 25.4, 2.5),), decode_tps=8.31, whole=False)
    bad = Row(Setting("openvino-cpu"), Verdict.OUT_OF_MEMORY, "took 9 GiB")
    table = Table("m", "k", "f", Goal.POWER, 0.0, (good, bad), "the rest", 0.1, (Failure("webgpu", "SIGSEGV", 1.0),))
    text = "\n".join(page(table, here="g"))
    for part in ("25.4", "8.3", "some operators ran on the CPU", "openvino-cpu: out of memory: took 9 GiB", "the rest"):
        assert part in text
    assert "failed while serving: webgpu: SIGSEGV" in text
    assert "no longer count" in text
    assert "no longer count" not in "\n".join(page(table, here="f"))
