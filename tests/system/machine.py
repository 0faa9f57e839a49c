"""A Debian that boots: one root file system in a container, with a real systemd as its process 1.

Owns the nspawn process. Standard library only: it runs with the system's own Python.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

MIRROR = os.environ.get("EDGED_DEBIAN_MIRROR", "")  # empty: debootstrap's own choice
PACKAGES = "systemd,systemd-sysv,dbus,python3,procps"
BOOT_S = 300.0
STOP_S = 120.0


def base_system(cache: Path, suite: str) -> Path:
    """A fresh minimal Debian of that suite, made once and kept in `cache`."""
    base = cache / suite
    if not (base / "etc/debian_version").exists() or (cache / f"{suite}.unfinished").exists():
        cache.mkdir(parents=True, exist_ok=True)
        (cache / f"{suite}.unfinished").touch()
        shutil.rmtree(base, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(base)]
        command += [MIRROR] if MIRROR else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (cache / f"{suite}.unfinished").unlink()
    return base


class Machine:
    """One container. `boot` and `power_off` may alternate; the disk stays between them."""

    def __init__(self, base: Path, root: Path, log: Path) -> None:
        self.root, self._log = root, log
        subprocess.run(["cp", "-a", "--reflink=auto", str(base), str(root)], check=True)
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> float:
        """Start it and wait until systemd has started what is enabled; seconds it took. Raises RuntimeError."""
        started_s = time.monotonic()
        command = ["systemd-nspawn", "--quiet", "-b", "-D", str(self.root), "--register=no", "--keep-unit"]
        command += ["--private-network", "--console=pipe", "--hostname=edged-box"]
        with self._log.open("ab") as log:
            self._nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while time.monotonic() - started_s < BOOT_S:
            if self._nspawn.poll() is not None:
                break
            self._leader = self._find_leader()
            if self._leader:
                state = self.run("systemctl", "is-system-running", check=False).strip()
                if state in ("running", "degraded"):
                    return time.monotonic() - started_s
            time.sleep(0.5)
        raise RuntimeError(f"it did not boot; its console is in {self._log}")

    def power_off(self) -> None:
        """Shut it down as an operator would, by force only when that takes too long."""
        if self._nspawn is None:
            return
        self.run("systemctl", "poweroff", check=False)
        try:
            self._nspawn.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None

    def run(self, *command: str, user: str = "", check: bool = True, timeout_s: float = 300.0) -> str:
        """What a command inside printed, both streams together. Raises RuntimeError when it fails and `check` is on."""
        return self.call(*command, user=user, check=check, timeout_s=timeout_s)[1]

    def call(self, *command: str, user: str = "", check: bool = False, timeout_s: float = 300.0) -> tuple[int, str]:
        """Exit status and output."""
        inside: Sequence[str] = ("runuser", "-u", user, "--", *command) if user else command
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=/tmp"]
        done = subprocess.run(
            ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", *environment, *inside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
        )
        text = done.stdout.decode(errors="replace")
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{text}")
        return done.returncode, text

    def outer_pid(self, pid: int) -> int:
        """The same process as this machine's kernel numbers it outside of the container."""
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                line = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:"))
            except (OSError, StopIteration):
                continue
            numbers = line.split()[1:]
            if len(numbers) > 1 and numbers[-1] == str(pid) and self._inside(int(numbers[0])):
                return int(numbers[0])
        raise RuntimeError(f"no process {pid} in the container")

    def _inside(self, outer: int) -> bool:
        try:
            return Path(f"/proc/{outer}/ns/pid").readlink() == Path(f"/proc/{self._leader}/ns/pid").readlink()
        except OSError:
            return False

    def _find_leader(self) -> int:
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        for child in children:
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        return 0
