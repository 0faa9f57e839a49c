"""Names for PCI devices: the few that matter here, and the system's pci.ids where it is installed."""

from __future__ import annotations

import re

from edged.hardware.tree import Tree

PCI_IDS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")

NAMES = {
    "8086:7d1d": "Meteor Lake NPU",
    "8086:ad1d": "Arrow Lake NPU",
    "8086:643e": "Lunar Lake NPU",
    "8086:b03e": "Panther Lake NPU",
    "1022:1502": "XDNA NPU (Phoenix, Hawk Point)",
    "1022:17f0": "XDNA 2 NPU (Strix, Krackan)",
}
"""NPUs: their generation decides what can run, and boxes seldom have pci.ids (Linux drivers/accel, device tables)."""


def pci_name(tree: Tree, pci_id: str | None) -> str | None:
    """The name of "8086:7D55"; the number itself when nobody knows it; None for a device that is not on PCI."""
    if not pci_id:
        return None
    pci_id = pci_id.lower()
    return NAMES.get(pci_id) or _look_up(tree, pci_id) or f"PCI {pci_id}"


def _look_up(tree: Tree, pci_id: str) -> str | None:
    """pci.ids has a vendor's devices indented below it: `8086  Intel` … `<tab>7d55  Meteor Lake-P [Intel Arc]`."""
    vendor, _, device = pci_id.partition(":")
    for path in PCI_IDS:
        section = re.search(rf"^{vendor}  .*\n((?:[\t#].*\n?)*)", tree.text(path), re.MULTILINE)
        found = section and re.search(rf"^\t{device}  (.+)", section[1], re.MULTILINE)
        if found:
            return found[1].strip()
    return None
