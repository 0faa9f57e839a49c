"""The probe: what this box is, from files and small tools. Reads only; runs no provider; needs no rights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.hardware.accelerators import Accelerator, AcceleratorKind
from edged.hardware.board import Board, BoardKind, read_board
from edged.hardware.cpu import Cpu, read_cpu
from edged.hardware.drm import read_accel_nodes, read_own_nodes, read_render_nodes
from edged.hardware.files import parse_int
from edged.hardware.memory import read_memory
from edged.hardware.nvidia import read_nvidia_cards, read_tegra
from edged.hardware.power import Power, read_power
from edged.hardware.thermal import ThermalReading, read_thermal
from edged.hardware.tree import Tree


@dataclass(frozen=True)
class Memory:
    """The machine's memory (bytes). `limit_bytes` is the tightest cgroup's; swap and zram are shown, never counted.

    `unified`: a GPU works in this same memory. `bandwidth` is bytes per second as measured, None if it was not.
    """

    total_bytes: int
    available_bytes: int
    limit_bytes: int | None
    swap_bytes: int
    zram_bytes: int
    unified: bool
    bandwidth: float | None = None


@dataclass(frozen=True)
class Disk:
    """The file system that holds the models (bytes)."""

    path: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class HardwareReport:
    """One look at the whole box."""

    board: Board
    kernel: str
    cpu: Cpu
    memory: Memory
    accelerators: tuple[Accelerator, ...]
    vulkan: tuple[str, ...]
    power: Power
    thermal: ThermalReading
    disk: Disk | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, field by field as named here."""
        return dataclasses.asdict(self)


def probe(
    root: Path | Tree = Path("/"), *, disk_path: Path = Path("/var/lib/edged"), bandwidth: float | None = None
) -> HardwareReport:
    """Looks at everything. `bandwidth` is passed in, measured or remembered: measuring takes a second."""
    tree = Tree.of(root)
    board = read_board(tree)
    accelerators = _accelerators(tree, board)
    unified = any(found.kind is AcceleratorKind.GPU and found.unified for found in accelerators)
    disk = tree.disk(disk_path)
    return HardwareReport(
        board=board,
        kernel=tree.uname()[0],
        cpu=read_cpu(tree),
        memory=_memory(tree, unified=unified, bandwidth=bandwidth),
        accelerators=accelerators,
        vulkan=_vulkan_drivers(tree),
        power=read_power(tree),
        thermal=read_thermal(tree),
        disk=Disk(str(disk_path), *disk) if disk else None,
    )


def _accelerators(tree: Tree, board: Board) -> tuple[Accelerator, ...]:
    """A Jetson's GPU is told by its own nodes; its render nodes show the same chip again."""
    if board.kind is BoardKind.JETSON:
        return (*read_tegra(tree, board), *read_own_nodes(tree))
    cards = read_nvidia_cards(tree)
    others = [found for found in read_render_nodes(tree) if not (cards and found.vendor == "NVIDIA")]
    return (*cards, *others, *read_accel_nodes(tree), *read_own_nodes(tree))


def _memory(tree: Tree, *, unified: bool, bandwidth: float | None) -> Memory:
    reading = read_memory(tree)
    swaps = [line.split() for line in tree.text("proc/swaps").splitlines()[1:]]
    sizes = {swap[0]: (parse_int(swap[2]) or 0) << 10 for swap in swaps if len(swap) == 5}
    return Memory(
        total_bytes=reading.total_bytes,
        available_bytes=reading.available_bytes,
        limit_bytes=reading.limit_bytes,
        swap_bytes=sum(sizes.values()),
        zram_bytes=sum(size for name, size in sizes.items() if name.startswith("/dev/zram")),
        unified=unified,
        bandwidth=bandwidth,
    )


def _vulkan_drivers(tree: Tree) -> tuple[str, ...]:
    """Installable client drivers by file name (Vulkan-Loader, LoaderDriverInterface.md)."""
    folders = ("usr/share/vulkan/icd.d", "etc/vulkan/icd.d", "usr/local/share/vulkan/icd.d")
    return tuple(path.rpartition("/")[2] for folder in folders for path in tree.glob(f"{folder}/*.json"))
