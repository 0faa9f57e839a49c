"""The probe on boxes that have nothing, on cards with memory of their own, with tools that misbehave, and here."""

from __future__ import annotations

import grp
import os
import platform
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from edged.hardware.accelerators import Accelerator, AcceleratorKind
from edged.hardware.bandwidth import measure_bandwidth
from edged.hardware.board import Board, BoardKind, read_board
from edged.hardware.budget import DevicePool
from edged.hardware.cpu import read_cpu
from edged.hardware.drm import read_render_nodes
from edged.hardware.nvidia import read_card_memory, read_nvidia_cards
from edged.hardware.power import read_power
from edged.hardware.probe import probe
from edged.hardware.tree import Tree
from tests.unit.hardware.trees import plant

GIB = 1 << 30


def test_an_empty_tree_is_a_box_that_tells_nothing(tmp_path: Path) -> None:
    report = probe(tmp_path)
    assert report.board == Board(BoardKind.PC, "unknown")
    assert (report.cpu.model, report.cpu.cores, report.cpu.threads) == ("unknown", 1, 1)
    assert (report.accelerators, report.vulkan, report.thermal.zones) == ((), (), ())
    assert report.disk is None


def test_this_machine() -> None:
    report = probe(disk_path=Path("/nonexistent/deep/below"))
    assert report.cpu.arch == platform.machine()
    assert report.cpu.threads == psutil.cpu_count()
    assert report.cpu.cores == psutil.cpu_count(logical=False)
    assert report.cpu.usable == len(os.sched_getaffinity(0))
    assert report.kernel == platform.release()
    assert report.memory.total_bytes == psutil.virtual_memory().total
    assert report.memory.swap_bytes == pytest.approx(psutil.swap_memory().total, abs=1 << 20)
    assert report.disk is not None
    assert report.disk.total_bytes == pytest.approx(psutil.disk_usage("/").total, rel=0.01)


def test_a_process_pinned_to_one_cpu_says_so() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert read_cpu(Tree()).usable == 1
    finally:
        os.sched_setaffinity(0, before)


def test_big_and_little_cores_and_only_what_all_of_them_have(tmp_path: Path) -> None:
    little = "Features\t: asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n"
    big = "Features\t: asimd asimddp i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd41\n"
    odd = "Features\t: asimd asimddp\nCPU implementer\t: 0x99\nCPU part\t: junk\n"
    tree = {
        "proc/cpuinfo": "\n".join(f"processor\t: {cpu}\n{kind}" for cpu, kind in enumerate([little, little, big, odd])),
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "2000000",
        "sys/devices/system/cpu/cpu2/cpufreq/cpuinfo_max_freq": "2500000",
    }
    cpu = read_cpu(Tree(plant(tmp_path, tree)))
    assert [(part.name, part.cpus) for part in cpu.clusters] == [
        ("Cortex-A78", (2,)),
        ("Cortex-A55", (0, 1)),
        ("unknown Arm core", (3,)),
    ]
    assert cpu.features == {"NEON": True, "dotprod": True, "i8mm": False, "SVE": False}
    assert cpu.model == "1 x Cortex-A78 + 2 x Cortex-A55 + 1 x unknown Arm core"


@pytest.mark.parametrize(
    ("release", "l4t", "jetpack"),
    [
        ("# R36 (release), REVISION: 4.0, GCID: 1", "36.4.0", "6.1"),
        ("# R36 (release), REVISION: 4.7, GCID: 1", "36.4.7", "6.2"),
        ("# R35 (release), REVISION: 4.1, BOARD: t186ref", "35.4.1", "5.1.2"),
        ("# R99 (release), REVISION: 1.0", "99.1.0", None),
        ("nonsense", None, None),
    ],
)
def test_l4t_and_jetpack(tmp_path: Path, release: str, l4t: str | None, jetpack: str | None) -> None:
    tree = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0",
        "etc/nv_tegra_release": release,
    }
    board = read_board(Tree(plant(tmp_path, tree)))
    assert (board.l4t, board.jetpack) == (l4t, jetpack)


def test_a_lenovo_is_called_by_the_name_people_know(tmp_path: Path) -> None:
    dmi = {"sys_vendor": "LENOVO", "product_name": "21KC004FUS", "product_version": "ThinkPad X1 Carbon Gen 12"}
    board = read_board(Tree(plant(tmp_path, {f"sys/class/dmi/id/{name}": text for name, text in dmi.items()})))
    assert board == Board(BoardKind.PC, "LENOVO ThinkPad X1 Carbon Gen 12 (21KC004FUS)")


def test_nvidia_cards_and_one_that_shares_the_machines_memory(tmp_path: Path) -> None:
    answer = (
        "NVIDIA RTX 2000 Ada Generation, 550.90.07, 16380, 15120, 8.9\n"
        "NVIDIA GB10, 580.95.05, [N/A], [N/A], 12.1\nsome warning, perhaps\n"
    )
    cards = read_nvidia_cards(Tree(plant(tmp_path, {"tools/nvidia-smi.txt": answer})))
    assert cards == [
        Accelerator(
            kind=AcceleratorKind.GPU,
            vendor="NVIDIA",
            name="NVIDIA RTX 2000 Ada Generation, sm_89",
            driver="nvidia",
            driver_version="550.90.07",
            node="/dev/nvidia0",
            memory_bytes=16380 << 20,
            unified=False,
        ),
        Accelerator(
            kind=AcceleratorKind.GPU,
            vendor="NVIDIA",
            name="NVIDIA GB10, sm_121",
            driver="nvidia",
            driver_version="580.95.05",
            node="/dev/nvidia1",
        ),
    ]


def test_a_cards_memory_is_a_pool_of_its_own(tmp_path: Path) -> None:
    answer = "NVIDIA RTX 2000 Ada Generation, 550.90.07, 16380, 15120, 8.9\nNVIDIA GB10, 580.95.05, [N/A], [N/A], 12.1"
    assert read_card_memory(plant(tmp_path, {"tools/nvidia-smi.txt": answer})) == [
        DevicePool("NVIDIA RTX 2000 Ada Generation", 16380 << 20, 15120 << 20),
        DevicePool("NVIDIA GB10", 0, 0, unified=True),
    ]


def test_an_nvidia_card_is_listed_once(tmp_path: Path) -> None:
    tree = {
        "tools/nvidia-smi.txt": "NVIDIA RTX 2000 Ada Generation, 550.90.07, 16380, 15120, 8.9",
        "sys/class/drm/renderD128/device/uevent": "DRIVER=nvidia\nPCI_ID=10DE:28B0\n",
    }
    assert len(probe(plant(tmp_path, tree)).accelerators) == 1
    (tmp_path / "tools/nvidia-smi.txt").unlink()
    (card,) = probe(tmp_path).accelerators
    assert card.name == "PCI 10de:28b0"


@pytest.mark.parametrize(
    ("driver", "files", "own_bytes"),
    [
        ("amdgpu", {"mem_info_vram_total": "17163091968", "gpu_metrics": "\x70\x00\x01\x03"}, 17163091968),
        ("amdgpu", {"mem_info_vram_total": "536870912", "gpu_metrics": "\x70\x00\x03\x00"}, None),
        ("amdgpu", {"mem_info_vram_total": "536870912"}, None),
        ("xe", {"tile0/physical_vram_size_bytes": "12884901888"}, 12884901888),
        ("xe", {}, None),
        ("i915", {}, None),
    ],
)
def test_cards_have_memory_and_processors_with_a_gpu_share_it(
    tmp_path: Path, driver: str, files: dict[str, str], own_bytes: int | None
) -> None:
    device = "sys/class/drm/renderD128/device/"
    tree = {device + "uevent": f"DRIVER={driver}\n", **{device + name: text for name, text in files.items()}}
    (gpu,) = read_render_nodes(Tree(plant(tmp_path, tree)))
    assert (gpu.memory_bytes, gpu.unified) == (own_bytes, own_bytes is None)


def test_battery_and_mains(tmp_path: Path) -> None:
    supply = "sys/class/power_supply/"
    tree = Tree(
        plant(tmp_path, {supply + "AC/type": "Mains", supply + "AC/online": "0", supply + "BAT0/type": "Battery"})
    )
    assert read_power(tree).on_battery is True
    plant(tmp_path, {supply + "AC/online": "1"})
    assert read_power(tree).on_battery is False
    (tmp_path / supply / "BAT0/type").unlink()
    assert read_power(tree).on_battery is None


def script(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_tools_that_hang_fail_or_are_absent_give_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "hangs", "sleep 60")
    script(tmp_path, "fails", "echo half an answer; exit 9")
    script(tmp_path, "works", 'echo "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tree = Tree(tool_timeout_s=0.2)
    begin_s = time.monotonic()
    assert [tree.output(name, "--query") for name in ("hangs", "fails", "absent", "works")] == ["", "", "", "--query"]
    assert time.monotonic() - begin_s < 30


def test_bandwidth_is_measured_and_not_at_any_price() -> None:
    measured = measure_bandwidth(0.05, available_bytes=1 * GIB)
    assert measured is not None
    assert 1e8 < measured < 1e13
    assert measure_bandwidth(0.05, available_bytes=256 << 20) is None


def as_nobody(ask: Callable[[], str]) -> str:
    """The answer of a child process that has given up root."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os.write(write_end, ask().encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def test_a_device_node_without_rights_names_the_group_that_would_help() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another group and ask as another user")
    group = next((entry for entry in grp.getgrall() if entry.gr_name in ("render", "video")), None)
    if group is None:
        pytest.skip("no group render or video here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for node, mode in (("renderD128", 0o660), ("mem", 0o600)):
            (folder / node).touch()
            os.chown(folder / node, 0, group.gr_gid)
            (folder / node).chmod(mode)
        nodes = [str(folder / node).lstrip("/") for node in ("renderD128", "mem")]
        answer = as_nobody(lambda: "|".join(str(Tree().blocked(node)) for node in nodes))
    helped, hopeless = answer.split("|")
    assert helped == f"no access to /{nodes[0]}: user not in group {group.gr_name}"
    assert hopeless == f"no access to /{nodes[1]}"
