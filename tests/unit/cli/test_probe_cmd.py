"""`edged probe` as a person meets it: a page, JSON, a record, and one line when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from edged.cli.probe_cmd import probe as probe_command
from edged.cli.probe_page import print_page
from edged.errors import HardwareError
from edged.hardware.findings import Findings, box_of
from edged.hardware.packages import Package
from edged.hardware.probe import probe
from edged.hardware.providers import examine

BOARDS = Path(__file__).parents[2] / "data" / "boards"
app = typer.Typer()
app.command()(probe_command)


def page(name: str, width: int = 120, packages: tuple[Package, ...] = ()) -> str:
    report = probe(BOARDS / name, bandwidth=34.1e9)
    console = Console(width=width, record=True, color_system=None, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        print_page(console, Findings(report, "0123456789abcdef", examine(box_of(report), packages), False))
    return console.export_text()


def test_the_page_of_a_jetson() -> None:
    text = page("jetson-orin-nano")
    for part in (
        "Kit Super, tegra234, L4T 36.4.3, JetPack 6.2",
        "6 x Cortex-A78AE",
        "NEON, dotprod, no i8mm, no SVE",
        "7.4 GiB, 5.8 GiB available, shared with the GPU",
        "3.7 GiB of it zram: never counted as memory",
        "34.1 GB/s",
        "NVIDIA tegra234 GPU (Ampere, sm_87) (nvgpu L4T 36.4.3)",
        "MAXN_SUPER (of 15W, 25W, MAXN_SUPER, 7W)",
        "cpu-thermal 47 °C (kept below 95)",
        "cuda",
        "docs/hardware.md",
    ):
        assert part in text


def test_the_page_of_a_raspberry_pi_says_that_it_is_throttled() -> None:
    assert "Slowed     now: under-voltage, throttled" in page("raspberry-pi-4")


def test_names_in_brackets_are_printed_as_they_are() -> None:
    assert "Meteor Lake-P [Intel Arc Graphics]" in page("x86-intel-meteor-lake")


@pytest.mark.parametrize("name", sorted(folder.name for folder in BOARDS.iterdir()))
def test_every_board_has_a_page_that_fits_a_narrow_terminal(name: str) -> None:
    assert all(len(line) <= 60 for line in page(name, width=60).splitlines())


def test_json_of_this_machine_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGED_STATE_DIR", str(tmp_path / "state"))
    first, second = (CliRunner().invoke(app, ["--json"], catch_exceptions=False) for _ in range(2))
    plain = json.loads(first.stdout)
    assert plain["schema"] == 1
    assert plain["memory"]["bandwidth"] > 0
    assert {row["candidate"]["key"]: row["usable"] for row in plain["providers"]}["cpu"] is True
    again = json.loads(second.stdout)
    assert again["fingerprint"] == plain["fingerprint"]
    assert again["memory"]["bandwidth"] == plain["memory"]["bandwidth"]


def test_record_writes_a_tree_and_never_into_a_full_folder(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    done = CliRunner().invoke(app, ["--record", str(folder)], catch_exceptions=False)
    assert "files written below" in done.stdout
    assert (folder / "proc/cpuinfo").is_file()
    with pytest.raises(HardwareError, match="not empty"):
        CliRunner().invoke(app, ["--record", str(folder)], catch_exceptions=False)
    with pytest.raises(HardwareError, match="Not a directory"):
        CliRunner().invoke(app, ["--record", str(folder / "proc/cpuinfo/x")], catch_exceptions=False)
