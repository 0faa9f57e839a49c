"""What the probe says of each board: trees rebuilt from public listings, and one recorded (see their SOURCE.md)."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edged.hardware.board import BoardKind
from edged.hardware.duty import duty, judged_zones, limits_for, zone_limit_c
from edged.hardware.fingerprint import fingerprint
from edged.hardware.probe import probe
from edged.hardware.record import record

BOARDS = Path(__file__).parents[2] / "data" / "boards"
GIB = 1 << 30


@dataclass(frozen=True)
class Expected:
    """What must be said of one board."""

    kind: BoardKind
    model: str
    cpu: str
    cores: int
    threads: int
    features: str
    memory_gib: float
    unified: bool
    devices: tuple[str, ...] = ()
    release: str | None = None
    mode: str | None = None
    slowed: tuple[str, ...] = ()
    lowest_limit_c: float | None = None


EXPECTED = {
    "raspberry-pi-4": Expected(
        BoardKind.RASPBERRY_PI,
        "Raspberry Pi 4 Model B Rev 1.5",
        "4 x Cortex-A72",
        4,
        4,
        "NEON",
        7.6,
        True,
        ("gpu Broadcom VideoCore v3d",),
        slowed=("under-voltage", "throttled"),
        lowest_limit_c=80.0,
    ),
    "raspberry-pi-5": Expected(
        BoardKind.RASPBERRY_PI,
        "Raspberry Pi 5 Model B Rev 1.0",
        "4 x Cortex-A76",
        4,
        4,
        "NEON dotprod",
        7.9,
        True,
        ("gpu Broadcom VideoCore v3d", "npu Hailo Hailo-8 family hailo_pci"),
        lowest_limit_c=80.0,
    ),
    "jetson-orin-nano": Expected(
        BoardKind.JETSON,
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "6 x Cortex-A78AE",
        6,
        6,
        "NEON dotprod",
        7.4,
        True,
        ("gpu NVIDIA tegra234 GPU (Ampere, sm_87) nvgpu",),
        release="L4T 36.4.3, JetPack 6.2",
        mode="MAXN_SUPER",
        lowest_limit_c=95.0,
    ),
    "jetson-agx-orin": Expected(
        BoardKind.JETSON,
        "NVIDIA Jetson AGX Orin Developer Kit",
        "12 x Cortex-A78AE",
        12,
        12,
        "NEON dotprod",
        30.0,
        True,
        ("gpu NVIDIA tegra234 GPU (Ampere, sm_87) nvgpu", "npu NVIDIA DLA 0 nvdla", "npu NVIDIA DLA 1 nvdla"),
        release="L4T 36.4.3, JetPack 6.2",
        mode="MAXN",
        lowest_limit_c=95.0,
    ),
    "x86-intel-meteor-lake": Expected(
        BoardKind.PC,
        "ASUSTeK COMPUTER INC. NUC14RVH",
        "Intel(R) Core(TM) Ultra 7 155H",
        16,
        22,
        "AVX2 AVX-VNNI",
        30.8,
        True,
        ("gpu Intel Meteor Lake-P [Intel Arc Graphics] i915", "npu Intel Meteor Lake NPU intel_vpu"),
        mode="balanced",
        lowest_limit_c=105.0,
    ),
    "x86-amd-phoenix": Expected(
        BoardKind.PC,
        "Micro Computer (HK) Tech Limited Venus Series",
        "AMD Ryzen 9 7940HS w/ Radeon 780M Graphics",
        8,
        16,
        "AVX2 AVX-512 AVX-512 VNNI",
        30.2,
        True,
        ("gpu AMD Phoenix1 amdgpu", "npu AMD XDNA NPU (Phoenix, Hawk Point) amdxdna"),
        lowest_limit_c=90.0,
    ),
    "vm-qemu": Expected(
        BoardKind.VM, "QEMU Standard PC (Q35 + ICH9, 2009)", "QEMU Virtual CPU version 2.5+", 4, 4, "", 3.8, False
    ),
    "vm-recorded": Expected(
        BoardKind.VM, "virtual machine", "AMD EPYC", 2, 2, "AVX2 AVX-512 AVX-512 VNNI", 23.5, False
    ),
}


def test_every_board_has_a_tree_and_names_its_source() -> None:
    trees = {folder.name for folder in BOARDS.iterdir()}
    assert trees == set(EXPECTED)
    for name in trees:
        source = (BOARDS / name / "SOURCE.md").read_text()
        if name == "vm-recorded":
            assert "**Recorded** with `edged probe --record`" in source
        else:
            assert "**not recorded on one**" in source
            assert "**filled in**" in source


@pytest.mark.parametrize("name", EXPECTED)
def test_what_the_probe_says(name: str) -> None:
    expected, report = EXPECTED[name], probe(BOARDS / name)
    board, cpu, memory = report.board, report.cpu, report.memory
    assert (board.kind, board.model) == (expected.kind, expected.model)
    assert expected.release == (f"L4T {board.l4t}, JetPack {board.jetpack}" if board.l4t else None)
    assert (cpu.model, cpu.cores, cpu.threads, cpu.usable) == (
        expected.cpu,
        expected.cores,
        expected.threads,
        expected.threads,
    )
    assert " ".join(feature for feature, has in cpu.features.items() if has) == expected.features
    assert cpu.arch == ("aarch64" if "Cortex" in expected.cpu else "x86_64")
    assert memory.total_bytes / GIB == pytest.approx(expected.memory_gib, abs=0.1)
    assert memory.unified is expected.unified
    found = tuple(f"{device.kind} {device.vendor} {device.name} {device.driver}" for device in report.accelerators)
    assert found == expected.devices
    assert all(device.memory_bytes is None and device.unified for device in report.accelerators)
    assert report.power.mode == expected.mode
    assert report.thermal.throttling.now == expected.slowed
    limits = limits_for(board.kind)
    limit_c = [zone_limit_c(zone, limits) for zone in judged_zones(report.thermal)]
    assert min(limit_c, default=None) == expected.lowest_limit_c
    assert duty(report.thermal, limits).share == (1.0 if "throttled" not in expected.slowed else limits.throttled)
    assert report.disk is not None
    assert 0 < report.disk.free_bytes < report.disk.total_bytes


def test_a_hybrid_processors_clusters() -> None:
    clusters = probe(BOARDS / "x86-intel-meteor-lake").cpu.clusters
    assert [(part.name, part.cpus[0], part.cpus[-1], part.max_mhz) for part in clusters] == [
        ("performance", 0, 11, 4800),
        ("efficiency", 12, 21, 3800),
    ]


def test_swap_and_zram_are_told_apart() -> None:
    pi4, pi5 = probe(BOARDS / "raspberry-pi-4").memory, probe(BOARDS / "raspberry-pi-5").memory
    assert (pi4.zram_bytes, pi4.swap_bytes) == (0, 102396 << 10)
    assert pi5.zram_bytes == pi5.swap_bytes == 2097136 << 10


def test_a_sleeping_sensor_is_left_out_not_read_as_minus_256() -> None:
    nano = {zone.name for zone in probe(BOARDS / "jetson-orin-nano").thermal.zones}
    assert nano == {"cpu-thermal", "gpu-thermal", "soc0-thermal", "soc1-thermal", "soc2-thermal", "tj-thermal"}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_report_is_plain_json(name: str) -> None:
    report = probe(BOARDS / name)
    read_back = json.loads(json.dumps(report.to_dict()))
    assert read_back["board"]["model"] == report.board.model
    assert read_back["cpu"]["features"] == report.cpu.features


@pytest.mark.parametrize("name", EXPECTED)
def test_recording_a_board_and_probing_the_record_says_the_same(name: str, tmp_path: Path) -> None:
    record(tmp_path, BOARDS / name)
    assert probe(tmp_path) == probe(BOARDS / name)


def test_fingerprints_tell_boards_apart_and_survive_a_warm_afternoon(tmp_path: Path) -> None:
    reports = {name: probe(BOARDS / name) for name in EXPECTED}
    packages = {"onnxruntime": "1.31.1"}
    assert len({fingerprint(report, packages) for report in reports.values()}) == len(EXPECTED)
    nano = reports["jetson-orin-nano"]
    later = shutil.copytree(BOARDS / "jetson-orin-nano", tmp_path / "later")
    (later / "sys/class/thermal/thermal_zone0/temp").write_text("91000\n")
    (later / "var/lib/nvpmodel/status").write_text("pmode:0000\n")
    (later / "tools/disk.txt").write_text("251000000000 1000\n")
    meminfo = (later / "proc/meminfo").read_text()
    (later / "proc/meminfo").write_text(meminfo.replace("MemAvailable:    6100000", "MemAvailable:     100000"))
    warm = probe(later, bandwidth=30e9)
    assert warm != nano
    assert fingerprint(warm, packages) == fingerprint(nano, packages)
    assert fingerprint(nano, {"onnxruntime": "1.32.0"}) != fingerprint(nano, packages)
    upgraded = replace(nano, board=replace(nano.board, l4t="36.5.0"))
    assert fingerprint(upgraded, packages) != fingerprint(nano, packages)


@pytest.mark.parametrize("spoil", [b"", b"\xff\xfe\x00garbage \n\n : : = 0x", b"-1", b"9" * 40], ids=repr)
@pytest.mark.parametrize("name", ["jetson-agx-orin", "x86-intel-meteor-lake", "x86-amd-phoenix", "raspberry-pi-5"])
def test_a_box_that_answers_nonsense_is_still_probed(name: str, spoil: bytes, tmp_path: Path) -> None:
    tree = shutil.copytree(BOARDS / name, tmp_path / name)
    for path in tree.rglob("*"):
        if path.is_file():
            path.write_bytes(spoil)
    report = probe(tree)
    assert report.memory.total_bytes > 0
    assert report.cpu.threads >= 1
    json.dumps(report.to_dict())


@pytest.mark.parametrize("name", ["jetson-agx-orin", "x86-intel-meteor-lake", "raspberry-pi-4"])
def test_files_cut_off_in_the_middle_are_tolerated(name: str, tmp_path: Path) -> None:
    tree = shutil.copytree(BOARDS / name, tmp_path / name)
    for path in tree.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    json.dumps(probe(tree).to_dict())
