"""Writing a plan to a machine's disk, or taking it away again; each may run twice. Starts and stops nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from edged.errors import OwnerError
from edged.service.plan import CONFIG_FOLDER, DROP_IN_FOLDER, STATE_FOLDER, TIMER_STAMP, Plan, unit_files


def apply(plan: Plan, root: Path = Path("/")) -> list[tuple[str, PurePosixPath]]:
    """Make the disk below `root` as planned; what was done to each file: wrote, unchanged, kept, removed.

    Raises OwnerError naming the file that cannot be written.
    """
    done = []
    for file in plan.write:
        target = _under(root, file.path)
        if file.keep and target.exists():
            done.append(("kept", file.path))
        elif target.is_file() and target.read_bytes() == file.text.encode():
            done.append(("unchanged", file.path))
        else:
            _write(target, file.text)
            done.append(("wrote", file.path))
    return done + _remove(plan.remove, root)


def remove(root: Path = Path("/"), *, purge: bool) -> list[tuple[str, PurePosixPath]]:
    """Take the files of an installation away; with `purge` also models, state and settings."""
    done = _remove((*unit_files(), *([TIMER_STAMP] if purge else [])), root)
    for folder in (STATE_FOLDER, CONFIG_FOLDER) if purge else ():
        target = _under(root, folder)
        if target.is_dir():
            try:
                shutil.rmtree(target)
            except OSError as error:
                raise OwnerError(f"{target}: cannot be removed: {error.strerror}") from error
            done.append(("removed", folder))
    return done


def _remove(paths: Iterable[PurePosixPath], root: Path) -> list[tuple[str, PurePosixPath]]:
    done = []
    for path in paths:
        target = _under(root, path)
        try:
            target.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise OwnerError(f"{target}: cannot be removed: {error.strerror}") from error
        done.append(("removed", path))
    with contextlib.suppress(OSError):  # it holds drop-ins of the owner's, or is not there
        _under(root, DROP_IN_FOLDER).rmdir()
    return done


def _write(target: Path, text: str) -> None:
    """Aside, fsync, rename: a power cut leaves the old unit or the new one."""
    aside = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644), "wb") as out:
            os.fchmod(out.fileno(), 0o644)
            out.write(text.encode())
            out.flush()
            os.fsync(out.fileno())
        aside.rename(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise OwnerError(
            f"{target}: cannot be written: {error.strerror}; this needs root (sudo edged install)"
        ) from error


def _under(root: Path, path: PurePosixPath) -> Path:
    return root / path.relative_to("/")
