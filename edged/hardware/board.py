"""Which board this is: device tree first (Arm boards), DMI second (PCs and most virtual machines)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from edged.hardware.tree import Tree


class BoardKind(StrEnum):
    """Families that edged treats differently."""

    RASPBERRY_PI = "raspberry-pi"
    JETSON = "jetson"
    ARM_BOARD = "arm-board"
    PC = "pc"
    VM = "vm"


@dataclass(frozen=True)
class Board:
    """The board as its firmware names it. `l4t` and `jetpack` are set on Jetsons only, `hypervisor` in a VM only."""

    kind: BoardKind
    model: str
    soc: str | None = None
    l4t: str | None = None
    jetpack: str | None = None
    hypervisor: str | None = None


JETPACK_OF_L4T = {
    "32.7": "4.6",
    "34.1": "5.0",
    "35.1": "5.0.2",
    "35.2": "5.1",
    "35.3": "5.1.1",
    "35.4": "5.1.2",
    "35.5": "5.1.3",
    "35.6": "5.1.4",
    "36.2": "6.0",
    "36.3": "6.0",
    "36.4.0": "6.1",
    "36.4": "6.2",
    "36.5": "6.2.2",
    "38.2": "7.0",
}
"""Longest match wins. NVIDIA's JetPack archive names the L4T release of each; later ones are shown by L4T alone."""

HYPERVISORS = {
    "QEMU": "QEMU/KVM",
    "VMware, Inc.": "VMware",
    "innotek GmbH": "VirtualBox",
    "Microsoft Corporation": "Hyper-V",
    "Xen": "Xen",
    "Parallels": "Parallels",
    "Amazon EC2": "KVM",
    "Google": "KVM",
    "Red Hat": "KVM",
    "OpenStack Foundation": "KVM",
}


def read_board(tree: Tree) -> Board:
    """Never fails: a box that tells nothing about itself is a PC or VM of unknown model."""
    compatible = _device_tree(tree, "compatible").split("\0")
    model = _device_tree(tree, "model")
    if "linux,dummy-virt" in compatible:
        return Board(BoardKind.VM, "virtual machine (device tree)", hypervisor="QEMU")
    if model:
        soc = compatible[-1].partition(",")[2] or None
        if any(name.startswith("raspberrypi,") for name in compatible):
            return Board(BoardKind.RASPBERRY_PI, model, soc)
        if soc and soc.startswith("tegra"):
            l4t = _l4t(tree)
            return Board(BoardKind.JETSON, model, soc, l4t, _jetpack(l4t))
        return Board(BoardKind.ARM_BOARD, model, soc)
    return _from_dmi(tree)


def _device_tree(tree: Tree, name: str) -> str:
    return tree.text(f"proc/device-tree/{name}") or tree.text(f"sys/firmware/devicetree/base/{name}")


def _from_dmi(tree: Tree) -> Board:
    vendor, product, version, board = (
        tree.text(f"sys/class/dmi/id/{name}")
        for name in ("sys_vendor", "product_name", "product_version", "board_name")
    )
    # Lenovo writes the name people know into the version; self-built PCs name only the board.
    if vendor == "LENOVO" and version:
        product = f"{version} ({product})"
    if not product or product.startswith(("To Be Filled", "System Product Name", "Default string")):
        product = board
    model = f"{vendor} {product}".strip()
    virtual = bool(re.search(r"^flags\s*:.*\bhypervisor\b", tree.text("proc/cpuinfo"), re.MULTILINE))
    hypervisor = tree.text("sys/hypervisor/type") or (HYPERVISORS.get(vendor, "unknown") if virtual else None)
    if hypervisor:
        return Board(BoardKind.VM, model or "virtual machine", hypervisor=hypervisor)
    return Board(BoardKind.PC, model or "unknown")


def _l4t(tree: Tree) -> str | None:
    """ "# R36 (release), REVISION: 4.3, ..." → "36.4.3"."""
    found = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", tree.text("etc/nv_tegra_release"))
    return f"{found[1]}.{found[2]}" if found else None


def _jetpack(l4t: str | None) -> str | None:
    known = [release for release in JETPACK_OF_L4T if l4t and f"{l4t}.".startswith(f"{release}.")]
    return JETPACK_OF_L4T[max(known, key=len)] if known else None
