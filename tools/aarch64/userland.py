"""An emulated Debian for aarch64 in a folder, with edged in it: made once, brought up to date when wheels change.

Owns the cache folder. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

SUITE = "bookworm"
PACKAGES = "python3,python3-venv,procps,ca-certificates"
VENV = "opt/edged"
NEED_BYTES = 3 * 10**9
NOT_RUN = ("ruff", "mypy", "types-psutil", "edged")  # of the extra `dev`: no tests need them
GLIBC_TAGS = (36, 34, 31, 28, 27, 26, 24, 17)  # bookworm has glibc 2.36
TARGET = [
    *("--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3", "--abi=none"),
    *(word for tag in GLIBC_TAGS for word in ("--platform", f"manylinux_2_{tag}_aarch64")),
    *("--platform", "manylinux2014_aarch64"),
]
HANDLER = Path("/proc/sys/fs/binfmt_misc")
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def make_base(cache: Path) -> Path:
    """The root file system, by debootstrap. Raises CalledProcessError and SystemExit."""
    root, unfinished = cache / SUITE, cache / f"{SUITE}.unfinished"
    if (root / "etc/debian_version").exists() and not unfinished.exists():
        return root
    cache.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(cache).free < NEED_BYTES:
        sys.exit(f"{cache}: less than {NEED_BYTES / 1e9:.0f} GB free; --cache names another place")
    unfinished.touch()
    shutil.rmtree(root, ignore_errors=True)
    command = ["debootstrap", "--arch=arm64", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
    mirror = os.environ.get("EDGED_DEBIAN_MIRROR", "")
    subprocess.run([*command, mirror] if mirror else command, check=True, stdout=subprocess.DEVNULL)
    unfinished.unlink()
    return root


def register() -> bool:
    """Lets the kernel start aarch64 programs through qemu; whether it could not before."""
    if not (HANDLER / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(HANDLER)], check=True)
    for handler in HANDLER.iterdir():
        if handler.name not in ("register", "status") and "aarch64" in handler.name:
            return False
    qemu = shutil.which("qemu-aarch64-static")
    (HANDLER / "register").write_text(f":edged-aarch64:M::{MAGIC}:{MASK}:{qemu}:F")
    return True


def unregister() -> None:
    """Undoes `register`."""
    (HANDLER / "edged-aarch64").write_text("-1")


def gather_wheels(cache: Path, source: Path) -> Path:
    """edged's own wheel, and aarch64 wheels of all that it and its tests need. Raises CalledProcessError."""
    wheels = cache / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    for old in wheels.glob("edged-*.whl"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)], check=True)
    project = tomllib.loads((source / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    more = [need for need in extras["dev"] if not need.startswith(NOT_RUN)]
    own = next(wheels.glob("edged-*.whl"))
    stamp, want = cache / "wheels.stamp", hashlib.sha256(str((project["dependencies"], extras)).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != want:
        named = [f"{own}[synthetic,fleet,metrics,pull]", *more]
        subprocess.run([*pip, "download", *TARGET, "--dest", str(wheels), *named], check=True)
        stamp.write_text(want)
    return wheels


def install_wheels(root: Path, wheels: Path, stamp: str) -> None:
    """Into the userland's virtual environment, by this machine's pip: unpacking needs no emulation.

    edged itself every time, the rest when `stamp` is new. Raises CalledProcessError.
    """
    place, noted = root / VENV / "lib/python3.11/site-packages", root / VENV / "edged.stamp"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-index", "--no-deps"]
    pip += ["--no-compile", *TARGET, "--upgrade", "--target", str(place)]
    is_new = not noted.exists() or noted.read_text() != stamp
    chosen = sorted(wheels.glob("*.whl" if is_new else "edged-*.whl"))
    subprocess.run([*pip, *map(str, chosen)], check=True)
    noted.write_text(stamp)


def copy_tests(root: Path, source: Path) -> None:
    """Tests and tools as they are in the working tree, without the package: that is the installed one."""
    place = root / "src"
    shutil.rmtree(place, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "tests", "tools", "models"]
    listed = subprocess.run(
        [*command, "pyproject.toml", "README.md", "systemd"], cwd=source, check=True, capture_output=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (source / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, place / name)
