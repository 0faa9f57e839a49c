"""Records what the probe reads into a tree of files, without what names this one box or its people.

The recorder is the probe's own view of the box with a notebook: what it never asks for is never written.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path

from edged.hardware.pci import PCI_IDS
from edged.hardware.pressure import read_pressure
from edged.hardware.probe import probe
from edged.hardware.tree import Tree

SCRUBBED = (
    (re.compile(r"\b[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "00000000-0000-0000-0000-000000000000"),
    (re.compile(r"\b([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b"), "00:00:00:00:00:00"),
    (re.compile(r"(?im)^(serial|uuid)\b.*\n?"), ""),
)
"""UUIDs, MAC addresses, and the serial number that Arm boards put at the end of /proc/cpuinfo."""

ONLY_LINES = {
    "proc/self/mountinfo": re.compile(r" - cgroup"),
    "proc/self/cgroup": re.compile(r"^\d+:[^:]*memory[^:]*:|^0::"),
    "proc/self/status": re.compile(r"^(Cpus_allowed_list|VmRSS|Rss\w+):"),
}
"""Files that say more than the probe uses: only these lines are kept."""


class Recorder(Tree):
    """A tree that keeps a scrubbed copy of every answer it gives, in `copies` (path → bytes)."""

    def __init__(self, root: Path, hostname: str) -> None:
        super().__init__(root)
        self.copies: dict[str, bytes] = {}
        self._names = {hostname: "host"} if hostname else {}
        self._number_groups()

    def data(self, path: str, limit: int = 4 << 20) -> bytes | None:
        found = super().data(path, limit)
        if found is not None:
            self._keep(path, found)
        return found

    def glob(self, pattern: str) -> list[str]:
        found = super().glob(pattern)
        for path in found:
            if not (self.root / path).is_dir():
                self.copies.setdefault(path, b"")
        return found

    def exists(self, path: str) -> bool:
        found = super().exists(path)
        if found and not (self.root / path).is_dir():
            self.copies.setdefault(path, b"")
        return found

    def output(self, tool: str, *arguments: str) -> str:
        found = super().output(tool, *arguments)
        if found:
            self._keep(f"tools/{tool}.txt", found.encode())
        return found

    def uname(self) -> tuple[str, str]:
        found = super().uname()
        self._keep("tools/uname.txt", " ".join(found).encode())
        return found

    def disk(self, path: Path) -> tuple[int, int] | None:
        found = super().disk(path)
        if found:
            self._keep("tools/disk.txt", f"{found[0]} {found[1]}".encode())
        return found

    def scrubbed_path(self, path: str) -> str:
        """Where a file goes in the recorded tree: cgroups lose their names there too."""
        return self._rename(path) if path.startswith("sys/fs/cgroup/") else path

    def _keep(self, path: str, data: bytes) -> None:
        if b"\0" in data and not path.startswith("proc/device-tree"):
            self.copies[path] = data  # a binary table
            return
        text = data.decode("utf-8", "replace")
        keep = ONLY_LINES.get(path)
        if keep:
            text = "".join(line + "\n" for line in text.splitlines() if keep.search(line))
        if path.startswith("proc/self/"):
            text = self._rename(text)
        for pattern, substitute in SCRUBBED:
            text = pattern.sub(substitute, text)
        self.copies[path] = text.encode()

    def _number_groups(self) -> None:
        """Gives each part of our cgroups' paths a number: they hold names of containers, users and services."""
        for line in super().text("proc/self/cgroup").splitlines():
            for part in filter(None, line.split(":", 2)[-1].split("/")):
                self._names.setdefault(part, f"group{len(self._names)}")

    def _rename(self, text: str) -> str:
        for name in sorted(self._names, key=len, reverse=True):
            text = re.sub(rf"(?<=[/:\s]){re.escape(name)}(?=[/\s]|$)", self._names[name], text, flags=re.MULTILINE)
        return text


def record(folder: Path, root: Path = Path("/")) -> list[str]:
    """Writes the recorded tree below `folder` and returns the paths written. Raises OSError if it cannot."""
    recorder = Recorder(root, socket.gethostname())
    probe(recorder)
    read_pressure(recorder)
    known = b" ".join(data for path, data in recorder.copies.items() if path.endswith("uevent")).lower()
    written = []
    for path, data in sorted(recorder.copies.items()):
        target = recorder.scrubbed_path(path)
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (folder / target).write_bytes(_named_devices(data, known) if path in PCI_IDS else data)
        written.append(target)
    return written


def _named_devices(pci_ids: bytes, known: bytes) -> bytes:
    """Of pci.ids (over a megabyte) only the vendors and devices that are in this box."""
    lines, vendor = [], b""
    for line in pci_ids.splitlines(keepends=True):
        if re.match(rb"[0-9a-f]{4}  ", line):
            vendor = line[:4]
            if b"pci_id=" + vendor in known:
                lines.append(line)
        elif re.match(rb"\t[0-9a-f]{4}  ", line) and b"pci_id=" + vendor + b":" + line[1:5] in known:
            lines.append(line)
    return b"".join(lines)
