"""GPUs with a render node (/dev/dri), NPUs with an accel node (/dev/accel), and the few that have one of their own."""

from __future__ import annotations

from edged.hardware.accelerators import Accelerator, AcceleratorKind
from edged.hardware.pci import pci_name
from edged.hardware.tree import Tree

RENDER_DRIVERS = {
    "i915": "Intel",
    "xe": "Intel",
    "amdgpu": "AMD",
    "nouveau": "NVIDIA",
    "nvidia": "NVIDIA",
    "v3d": "Broadcom",
    "msm": "Qualcomm",
    "panfrost": "Arm",
    "panthor": "Arm",
}
"""Drivers whose render nodes can compute. Displays (vc4, ast) and paravirtual ones (virtio_gpu) are left out."""

ACCEL_DRIVERS = {"intel_vpu": "Intel", "amdxdna": "AMD", "rocket": "Rockchip", "ethosu": "Arm", "qaic": "Qualcomm"}
PLATFORM_NAMES = {"v3d": "VideoCore", "msm": "Adreno", "panfrost": "Mali", "panthor": "Mali", "rocket": "Rockchip NPU"}

OWN_NODES = (
    ("dev/hailo0", AcceleratorKind.NPU, "Hailo", "Hailo-8 family", "hailo_pci"),
    ("dev/apex_0", AcceleratorKind.NPU, "Google", "Coral Edge TPU", "apex"),
    ("dev/rknpu", AcceleratorKind.NPU, "Rockchip", "RKNPU", "rknpu"),
    ("dev/fastrpc-cdsp", AcceleratorKind.DSP, "Qualcomm", "Hexagon compute DSP", "fastrpc"),
    ("dev/adsprpc-smd", AcceleratorKind.DSP, "Qualcomm", "Hexagon DSP", "adsprpc"),
)


def read_render_nodes(tree: Tree) -> list[Accelerator]:
    """GPUs by render node."""
    found = []
    for path in tree.glob("sys/class/drm/renderD*"):
        device = f"{path}/device"
        uevent = _uevent(tree, device)
        driver = uevent.get("DRIVER", "")
        if driver not in RENDER_DRIVERS:
            continue
        memory_bytes = _own_memory(tree, device, driver)
        found.append(
            _accelerator(
                tree,
                kind=AcceleratorKind.GPU,
                vendor=RENDER_DRIVERS[driver],
                name=pci_name(tree, uevent.get("PCI_ID")) or PLATFORM_NAMES.get(driver, "GPU"),
                driver=driver,
                node=f"dev/dri/{path.rpartition('/')[2]}",
                memory_bytes=memory_bytes,
            )
        )
    return found


def read_accel_nodes(tree: Tree) -> list[Accelerator]:
    """NPUs by accel node (Linux Documentation/accel). An unknown driver is shown by its own name."""
    found = []
    for path in tree.glob("sys/class/accel/accel*"):
        uevent = _uevent(tree, f"{path}/device")
        driver = uevent.get("DRIVER", "unknown")
        found.append(
            _accelerator(
                tree,
                kind=AcceleratorKind.NPU,
                vendor=ACCEL_DRIVERS.get(driver, "unknown"),
                name=pci_name(tree, uevent.get("PCI_ID")) or PLATFORM_NAMES.get(driver, "NPU"),
                driver=driver,
                node=f"dev/accel/{path.rpartition('/')[2]}",
            )
        )
    return found


def read_own_nodes(tree: Tree) -> list[Accelerator]:
    """Devices that register no class of their own."""
    return [
        _accelerator(tree, kind=kind, vendor=vendor, name=name, driver=driver, node=node)
        for node, kind, vendor, name, driver in OWN_NODES
        if tree.exists(node)
    ]


def _accelerator(
    tree: Tree,
    *,
    kind: AcceleratorKind,
    vendor: str,
    name: str,
    driver: str,
    node: str,
    memory_bytes: int | None = None,
) -> Accelerator:
    return Accelerator(
        kind=kind,
        vendor=vendor,
        name=name,
        driver=driver,
        # Drivers of the kernel's own tree carry its version.
        driver_version=tree.text(f"sys/module/{driver}/version") or tree.uname()[0] or None,
        node=f"/{node}",
        memory_bytes=memory_bytes,
        unified=memory_bytes is None,
        problem=tree.blocked(node),
    )


def _uevent(tree: Tree, device: str) -> dict[str, str]:
    """`KEY=value` lines: DRIVER, and for PCI devices PCI_ID ("8086:7D55") and PCI_SLOT_NAME."""
    return dict(line.split("=", 1) for line in tree.text(f"{device}/uevent").splitlines() if "=" in line)


def _own_memory(tree: Tree, device: str, driver: str) -> int | None:
    """Bytes of memory on the card; None for a GPU that shares the machine's.

    amdgpu shows a carve-out of system memory as VRAM too: the revision of its metrics table (third byte) tells cards
    (1) from processors with a GPU inside (2 and up) (Linux drivers/gpu/drm/amd/include/kgd_pp_interface.h).
    """
    if driver == "amdgpu":
        header = tree.data(f"{device}/gpu_metrics", 4) or b""
        return tree.number(f"{device}/mem_info_vram_total") if header[2:3] == b"\x01" else None
    if driver == "xe":
        return tree.number(f"{device}/tile0/physical_vram_size_bytes")
    return None
