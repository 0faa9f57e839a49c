"""NVIDIA's GPUs: cards by nvidia-smi, a Jetson's own by its device nodes."""

from __future__ import annotations

from pathlib import Path

from edged.hardware.accelerators import Accelerator, AcceleratorKind
from edged.hardware.board import Board
from edged.hardware.budget import DevicePool
from edged.hardware.tree import Tree

SMI_QUERY = (
    "--query-gpu=name,driver_version,memory.total,memory.free,compute_cap",
    "--format=csv,noheader,nounits",
)

TEGRA_GPUS = {
    "tegra210": "Maxwell, sm_53",
    "tegra186": "Pascal, sm_62",
    "tegra194": "Volta, sm_72",
    "tegra234": "Ampere, sm_87",
    "tegra264": "Blackwell",
}
TEGRA_GPU_NODES = ("dev/nvgpu/igpu0/ctrl", "dev/nvhost-ctrl-gpu", "dev/nvhost-gpu", "dev/nvidia0")
"""JetPack 6 first, then JetPack 4 and 5; Thor has the desktop driver's node."""


def read_nvidia_cards(tree: Tree) -> list[Accelerator]:
    """What nvidia-smi lists. A GPU that shares the machine's memory answers "[N/A]" for its own."""
    return [
        Accelerator(
            kind=AcceleratorKind.GPU,
            vendor="NVIDIA",
            name=f"{name}, sm_{capability.replace('.', '')}",
            driver="nvidia",
            driver_version=version,
            node=f"/dev/nvidia{index}",
            memory_bytes=_mib(total),
            unified=_mib(total) is None,
            problem=tree.blocked(f"dev/nvidia{index}"),
        )
        for index, (name, version, total, _, capability) in enumerate(_smi(tree))
    ]


def read_card_memory(root: Path | Tree = Path("/")) -> list[DevicePool]:
    """Each card's memory now, in nvidia-smi's order. Starts a process: not for every token."""
    return [
        DevicePool(name, _mib(total) or 0, _mib(free) or 0, unified=_mib(total) is None)
        for name, _, total, free, _ in _smi(Tree.of(root))
    ]


def read_tegra(tree: Tree, board: Board) -> list[Accelerator]:
    """A Jetson's GPU, which is not on PCI, and its deep-learning accelerators (DLA). All share the one memory."""
    version = f"L4T {board.l4t}" if board.l4t else None
    gpu_node = next((node for node in TEGRA_GPU_NODES if tree.exists(node)), None)
    found = []
    if gpu_node:
        name = f"{board.soc} GPU ({TEGRA_GPUS.get(board.soc or '', 'unknown generation')})"
        found.append(_on_chip(tree, AcceleratorKind.GPU, name, "nvgpu", version, gpu_node))
    for node in tree.glob("dev/nvhost-ctrl-nvdla[0-9]"):
        found.append(_on_chip(tree, AcceleratorKind.NPU, f"DLA {node[-1]}", "nvdla", version, node))
    return found


def _on_chip(tree: Tree, kind: AcceleratorKind, name: str, driver: str, version: str | None, node: str) -> Accelerator:
    return Accelerator(
        kind=kind,
        vendor="NVIDIA",
        name=name,
        driver=driver,
        driver_version=version,
        node=f"/{node}",
        problem=tree.blocked(node),
    )


def _smi(tree: Tree) -> list[list[str]]:
    """nvidia-smi's rows; a row of another shape (a warning, an error) is none."""
    rows = [[field.strip() for field in line.split(",")] for line in tree.output("nvidia-smi", *SMI_QUERY).splitlines()]
    return [row for row in rows if len(row) == 5]


def _mib(text: str) -> int | None:
    return int(text) << 20 if text.isdecimal() else None
