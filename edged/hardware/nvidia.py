"""NVIDIA's GPUs: cards by nvidia-smi, a Jetson's own by its device nodes."""

from __future__ import annotations

from edged.hardware.accelerators import Accelerator, AcceleratorKind
from edged.hardware.board import Board
from edged.hardware.tree import Tree

SMI_QUERY = ("--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader,nounits")

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
    rows = [[field.strip() for field in line.split(",")] for line in tree.output("nvidia-smi", *SMI_QUERY).splitlines()]
    return [
        Accelerator(
            kind=AcceleratorKind.GPU,
            vendor="NVIDIA",
            name=f"{name}, sm_{capability.replace('.', '')}",
            driver="nvidia",
            driver_version=version,
            node=f"/dev/nvidia{index}",
            memory_bytes=int(mib) << 20 if mib.isdecimal() else None,
            unified=not mib.isdecimal(),
            problem=tree.blocked(f"dev/nvidia{index}"),
        )
        for index, (name, version, mib, capability) in enumerate(row for row in rows if len(row) == 4)
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
