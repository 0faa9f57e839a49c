"""Checks of what lies on disk: state directory, socket, model files, space."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from pathlib import Path

from edged.doctor.check import Check, Level
from edged.errors import ModelError
from edged.store.any_model import read_any
from edged.store.models import find_model

LOW_DISK_BYTES = 512 * 2**20
NO_DISK_BYTES = 64 * 2**20


def check_state(state: Path, service_uid: int | None) -> Check:
    """The state directory: there, its owner's alone. `service_uid`: the uid of the installed service, None without."""
    name = "permissions"
    try:
        about = state.stat()
    except FileNotFoundError:
        return Check(name, Level.OK, f"{state} is not there yet; it is made when it is first needed")
    except OSError as error:
        return Check(name, Level.SKIP, f"{state}: {error.strerror}", "sudo edged doctor")
    if not stat.S_ISDIR(about.st_mode):
        return Check(name, Level.FAIL, f"{state} is no directory", f"move it away: mv {state} {state}.old")
    if about.st_mode & 0o022:
        return Check(name, Level.FAIL, f"{state} may be written by others", f"chmod 700 {state}")
    expected = os.getuid() if service_uid is None else service_uid
    if about.st_uid != expected and service_uid is not None:
        owner = user_name(about.st_uid)
        return Check(name, Level.FAIL, f"{state} belongs to {owner}", f"chown -R edged:edged-clients {state}")
    return Check(name, Level.OK, f"{state} {stat.filemode(about.st_mode)} {user_name(about.st_uid)}")


def check_socket(path: Path | None, service_gid: int | None) -> Check:
    """The socket file itself; whether somebody answers behind it is another check. None: not an ipc endpoint."""
    name = "socket"
    if path is None:
        return Check(name, Level.OK, "the endpoint is no file")
    try:
        about = path.stat()
    except FileNotFoundError:
        return Check(
            name, Level.FAIL, f"{path} is not there", "start the daemon: systemctl start edged, or edged serve"
        )
    except OSError as error:
        todo = f"sudo usermod -aG edged-clients {user_name(os.getuid())}, then log in again"
        return Check(name, Level.FAIL, f"{path}: {error.strerror}", todo)
    if not stat.S_ISSOCK(about.st_mode):
        return Check(name, Level.FAIL, f"{path} is no socket", "remove it and restart the daemon")
    if about.st_mode & 0o006:
        return Check(name, Level.FAIL, f"{path} is open to every user", f"chmod 660 {path}")
    shown = f"{path} {stat.filemode(about.st_mode)} {user_name(about.st_uid)}:{group_name(about.st_gid)}"
    if service_gid is not None and about.st_gid != service_gid and path.is_relative_to("/run/edged"):
        return Check(name, Level.WARN, shown, "members of edged-clients cannot use it: systemctl restart edged")
    return Check(name, Level.OK, shown)


def check_model(wanted: str, state: Path) -> Check:
    """The configured model's files, as the engine checks them before it loads: whole, consistent, long enough."""
    name = "model files"
    try:
        model = find_model(wanted, state)
        manifest = read_any(model.folder)
    except ModelError as error:
        return Check(name, Level.FAIL, str(error), 'put the model back, or name another: model = "…" in the settings')
    except PermissionError as error:
        return Check(name, Level.SKIP, f"{error.filename}: {error.strerror}", "sudo edged doctor")
    size_mb = manifest.weights_bytes / 1e6
    return Check(name, Level.OK, f"{model.name} ({model.origin}): {len(manifest.files)} files, {size_mb:.0f} MB, whole")


def check_disk(free_bytes: int | None, total_bytes: int, state: Path) -> Check:
    """Room for an update to be staged and for the small files that are written all the time."""
    name = "disk"
    if free_bytes is None:
        return Check(name, Level.SKIP, f"{state}: its file system does not say")
    found = f"{free_bytes / 1e9:.1f} of {total_bytes / 1e9:.1f} GB free for {state}"
    if free_bytes < NO_DISK_BYTES:
        return Check(name, Level.FAIL, found, f"make room: du -xh {state} | sort -h | tail")
    if free_bytes < LOW_DISK_BYTES:
        return Check(name, Level.WARN, found, "too little for most model updates; make room")
    return Check(name, Level.OK, found)


def user_name(uid: int) -> str:
    """A uid as people know it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def group_name(gid: int) -> str:
    """A gid as people know it."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return f"gid {gid}"
