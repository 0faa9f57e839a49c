#!/usr/bin/env python3
"""Cuts the power of a disk at random moments of an update: each image of it must mount and hold a whole model.

The state lies on ext4, on a loop device over a file on XFS. A reflink copy of that file is what the disk held at one
moment, in an instant; it is mounted (ext4 replays its journal), judged, and updated again. Needs root, mkfs.ext4,
mkfs.xfs and the right to mount. Exit codes: 0 all held, 1 something broke, 2 wrong usage, 77 cannot run here.
"""

from __future__ import annotations

import argparse
import collections
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import update_scenarios

FICLONE = 0x40049409
DISK_MIB, HOST_MIB = 64, 512
MOST_CUTS_PER_UPDATE = 12


def why_not() -> str | None:
    """The reason why this cannot run here, or None."""
    if os.getuid() != 0:
        return "needs root"
    missing = [tool for tool in ("mkfs.ext4", "mkfs.xfs", "losetup", "mount") if shutil.which(tool) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


def call(*words: object) -> None:
    subprocess.run(list(map(str, words)), check=True, capture_output=True, timeout=60)


@contextmanager
def mounted(image: Path, folder: Path, kind: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    call("mount", "-o", "loop", "-t", kind, image, folder)
    try:
        yield folder
    finally:
        _unmount(folder)


def _unmount(folder: Path) -> None:
    for _ in range(50):
        if subprocess.run(["umount", folder], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.1)
    call("umount", "-l", folder)


def snapshot(image: Path, copy: Path) -> None:
    """What the disk holds at this moment, in one step."""
    with image.open("rb") as source, copy.open("wb") as target:
        fcntl.ioctl(target.fileno(), FICLONE, source.fileno())


def cut_updates(base: Path, cuts: int, seed: int, limit_s: float) -> dict[str, object]:
    chance, started = random.Random(seed), time.monotonic()
    states: collections.Counter[str] = collections.Counter()
    broken: list[str] = []
    plain, host_image = base / "plain", base / "host.xfs"
    plain.mkdir()
    update_scenarios.prepare(plain)
    host_image.touch()
    os.truncate(host_image, HOST_MIB << 20)
    call("mkfs.xfs", "-q", "-m", "reflink=1", host_image)
    with mounted(host_image, base / "host", "xfs") as host:
        fresh, live = host / "fresh.ext4", host / "live.ext4"
        fresh.touch()
        os.truncate(fresh, DISK_MIB << 20)
        call("mkfs.ext4", "-q", "-F", fresh)
        with mounted(fresh, base / "disk", "ext4") as disk:
            shutil.copytree(plain, disk / "edged", symlinks=True)
        whole_s = min(_time_one(fresh, live, base) for _ in range(3))
        while sum(states.values()) < cuts and time.monotonic() - started < limit_s:
            images = _update_and_cut(fresh, live, base, host, chance, whole_s)[: cuts - sum(states.values())]
            for image in images:
                name, problem = _judge(image, base)
                states[name] += 1
                if problem:
                    broken.append(problem)
                image.unlink()
    return {
        "cuts": sum(states.values()),
        "states": dict(states),
        "broken": broken,
        "seconds": round(time.monotonic() - started, 1),
        "update_s": round(whole_s, 2),
        "seed": seed,
    }


def _time_one(fresh: Path, live: Path, base: Path) -> float:
    snapshot(fresh, live)
    with mounted(live, base / "disk", "ext4") as disk:
        started = time.monotonic()
        update_scenarios.act(disk / "edged")
        return time.monotonic() - started


def _update_and_cut(
    fresh: Path, live: Path, base: Path, host: Path, chance: random.Random, whole_s: float
) -> list[Path]:
    """One update in a child, and images of the disk at random moments until it ends; the last is killed with it."""
    snapshot(fresh, live)
    images: list[Path] = []
    with mounted(live, base / "disk", "ext4") as disk:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                update_scenarios.act(disk / "edged")
                status = 0
            finally:
                os._exit(status)
        while len(images) < MOST_CUTS_PER_UPDATE and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(chance.uniform(0, whole_s / 4))
            images.append(host / f"cut{len(images)}.ext4")
            snapshot(live, images[-1])
        if len(images) == MOST_CUTS_PER_UPDATE:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    return images


def _judge(image: Path, base: Path) -> tuple[str, str]:
    """Old or new, and a rerun that succeeds; else what is wrong."""
    try:
        with mounted(image, base / "after", "ext4") as disk:
            state = update_scenarios.judge(disk / "edged", 1)
            update_scenarios.rerun(disk / "edged")
            return state, ""
    except Exception as error:
        return "broken", f"{type(error).__name__}: {error}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--cuts", type=int, default=200, help="how many (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (1)")
    parser.add_argument("--limit-s", type=float, default=1800.0, help="give up after this many seconds")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args(argv)
    if reason := why_not():
        print(json.dumps({"skipped": reason}) if args.json else f"skipped: {reason}")
        return 77
    with tempfile.TemporaryDirectory(prefix="edged-power-") as base:
        found = cut_updates(Path(base), args.cuts, args.seed, args.limit_s)
    print(json.dumps(found, indent=1) if args.json else "\n".join(f"{name}: {value}" for name, value in found.items()))
    return 1 if found["broken"] or found["cuts"] < args.cuts else 0  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
