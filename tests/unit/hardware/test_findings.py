"""What takes seconds is done once per fingerprint and kept; what cannot be kept is no failure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edged.hardware.findings import FILE, find_out
from edged.hardware.packages import Package
from edged.hardware.provider_rules import Box
from edged.hardware.providers import ProviderReport

BOARDS = Path(__file__).parents[2] / "data" / "boards"


class Counting:
    """Stands for the two slow parts and counts how often they are asked."""

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.measured: list[int] = []

    def examine(self, box: Box, packages: Sequence[Package]) -> tuple[ProviderReport, ...]:
        self.boxes.append(box)
        return ()

    def measure(self, available_bytes: int) -> float:
        self.measured.append(available_bytes)
        return 12.5e9


def test_the_second_time_nothing_is_run(tmp_path: Path) -> None:
    slow = Counting()
    for remembered in (False, True):
        found = find_out(
            tmp_path, root=BOARDS / "jetson-orin-nano", measure=slow.measure, examine_providers=slow.examine
        )
        assert (found.remembered, found.report.memory.bandwidth) == (remembered, 12.5e9)
    assert len(slow.boxes) == len(slow.measured) == 1
    assert slow.boxes[0].jetson
    assert slow.boxes[0].machine == "aarch64"
    assert slow.measured == [6100000 << 10]


def test_another_box_or_a_refresh_finds_out_again(tmp_path: Path) -> None:
    slow = Counting()
    for board, refresh in (("jetson-orin-nano", False), ("raspberry-pi-5", False), ("raspberry-pi-5", True)):
        find_out(tmp_path, root=BOARDS / board, refresh=refresh, measure=slow.measure, examine_providers=slow.examine)
    assert len(slow.boxes) == len(slow.measured) == 3


def test_a_lean_process_leaves_bandwidth_unmeasured_and_does_not_spoil_what_is_known(tmp_path: Path) -> None:
    slow = Counting()
    root = BOARDS / "raspberry-pi-5"
    assert find_out(tmp_path, root=root, examine_providers=slow.examine).report.memory.bandwidth is None
    find_out(tmp_path, root=root, measure=slow.measure, examine_providers=slow.examine)
    again = find_out(tmp_path, root=root, examine_providers=slow.examine)
    assert again.report.memory.bandwidth == 12.5e9
    assert again.remembered
    assert len(slow.boxes) == 1


def test_a_spoilt_file_is_found_out_again(tmp_path: Path) -> None:
    slow = Counting()
    for spoil in ("", "{}", "[]", '{"fingerprint": 1, "bytes_per_s": "x"}'):
        find_out(tmp_path, root=BOARDS / "raspberry-pi-5", measure=slow.measure, examine_providers=slow.examine)
        (tmp_path / FILE).write_text(spoil)
    assert len(slow.measured) == 4


def test_a_state_directory_that_refuses_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the directory should be")
    slow = Counting()
    found = find_out(tmp_path / "state", root=BOARDS / "vm-qemu", measure=slow.measure, examine_providers=slow.examine)
    assert found.report.memory.bandwidth == 12.5e9
    assert not found.remembered
