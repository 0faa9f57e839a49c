"""The box as files below one root, and a few small tools: the only way the probe looks at it.

On the live machine the root is "/". Elsewhere it is a recorded tree: tools then do not run, their recorded answers
are read from `tools/NAME.txt`. Absent, unreadable and garbage are facts here, not failures: they give None or "".
"""

from __future__ import annotations

import grp
import os
import subprocess
from pathlib import Path
from typing import Self

from edged.hardware.files import MAX_FILE_BYTES, parse_int, read_bytes

TOOL_TIMEOUT_S = 5.0
"""nvidia-smi may take seconds to wake a driver; one that hangs must not keep the daemon from starting."""


class Tree:
    """Reads below `root`. Paths are relative to it, without a leading slash."""

    def __init__(self, root: Path = Path("/"), *, tool_timeout_s: float = TOOL_TIMEOUT_S) -> None:
        self.root = root
        self.live = root == Path("/")
        self._tool_timeout_s = tool_timeout_s

    @classmethod
    def of(cls, root: Path | Self) -> Self:
        """A tree from either; what functions take that may be given a plain path."""
        return root if isinstance(root, cls) else cls(Path(root))  # type: ignore[arg-type]

    def data(self, path: str, limit: int = MAX_FILE_BYTES) -> bytes | None:
        """The first `limit` bytes of a file; None if there is none to be had."""
        return read_bytes(self.root / path, limit)

    def text(self, path: str) -> str:
        """A file's text without trailing white space and NULs (device-tree strings end in one); "" if unreadable."""
        return (self.data(path) or b"").decode("utf-8", "replace").rstrip("\0 \t\r\n")

    def number(self, path: str) -> int | None:
        """A file that holds one decimal integer; None if anything else."""
        return parse_int(self.text(path))

    def glob(self, pattern: str) -> list[str]:
        """Paths that match, in natural order (cpu2 before cpu10)."""
        try:
            found = [path.relative_to(self.root).as_posix() for path in self.root.glob(pattern)]
        except OSError:
            return []
        return sorted(found, key=lambda path: (len(path), path))

    def exists(self, path: str) -> bool:
        return os.path.exists(self.root / path)

    def output(self, tool: str, *arguments: str) -> str:
        """What a small tool prints; "" when it is absent, fails or takes too long."""
        if not self.live:
            return self.text(f"tools/{tool}.txt")
        try:
            done = subprocess.run(
                [tool, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self._tool_timeout_s,
                check=True,
                env={**os.environ, "LC_ALL": "C"},
            )
        except (OSError, subprocess.SubprocessError):
            return ""
        return done.stdout.decode("utf-8", "replace").strip()

    def uname(self) -> tuple[str, str]:
        """(kernel release, machine), such as ("6.6.31+rpt-rpi-2712", "aarch64")."""
        if self.live:
            return os.uname().release, os.uname().machine
        release, _, machine = self.text("tools/uname.txt").partition(" ")
        return release, machine

    def disk(self, path: Path) -> tuple[int, int] | None:
        """(total, free to us) bytes of the file system that holds `path`, or its nearest existing parent."""
        if not self.live:
            numbers = [parse_int(word) for word in self.text("tools/disk.txt").split()]
            return (numbers[0] or 0, numbers[1] or 0) if len(numbers) == 2 else None
        for folder in (path, *path.parents):
            try:
                found = os.statvfs(folder)
            except OSError:
                continue
            return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        return None

    def blocked(self, node: str) -> str | None:
        """Why this process may not use a device node, or None when it may (or the node is a recorded one)."""
        path = self.root / node
        if not self.live or os.access(path, os.R_OK | os.W_OK):
            return None
        try:
            node_stat = path.stat()
            # Group rights to read and write, and a group that people are put into: root is none.
            helps = node_stat.st_mode & 0o060 == 0o060 and node_stat.st_gid != 0
            group = grp.getgrgid(node_stat.st_gid).gr_name if helps else ""
        except (OSError, KeyError):
            group = ""
        return f"no access to /{node}" + (f": user not in group {group}" if group else "")
