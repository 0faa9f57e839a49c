"""A daemon of one's own for the length of one command, when none serves this user."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import typer

from edged import children
from edged.client import DaemonNotFound
from edged.client.locate import NO_PERMISSION, find_daemon, trouble_at
from edged.errors import OwnerError
from edged.protocol.endpoint import SYSTEM_SOCKET

START_S = 30.0
STOP_S = 10.0
LOOK_AGAIN_S = 0.02
LONGEST_TMPDIR = 60  # characters; a socket's path may have 107


@contextlib.contextmanager
def daemon_or_private(endpoint: str | None, model: str | None, default: str = "nano") -> Iterator[tuple[str, bool]]:
    """The daemon that runs, or one started here; and whether it was. One that was named is never replaced.

    A private one gets `model`, else the model that the environment names, else `default`.

    Raises DaemonNotFound for a named endpoint where nobody listens and for a system's daemon that refuses this user,
    OwnerError when a private one does not start.
    """
    try:
        found = find_daemon(endpoint)
    except DaemonNotFound:
        if endpoint or os.environ.get("EDGED_ENDPOINT") or trouble_at(f"ipc://{SYSTEM_SOCKET}") == NO_PERMISSION:
            raise
    else:
        yield found, False
        return
    with _private(model or os.environ.get("EDGED_MODEL") or default) as started:
        yield started, True


@contextlib.contextmanager
def _private(model: str) -> Iterator[str]:
    typer.echo(f"edged: no daemon runs; starting a private one with model {model} for this command", err=True)
    short = tempfile.gettempdir() if len(tempfile.gettempdir()) < LONGEST_TMPDIR else "/tmp"
    with tempfile.TemporaryDirectory(prefix="edged-", dir=short) as folder:
        endpoint = f"ipc://{folder}/edged.sock"
        log = Path(folder) / "log"
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                children.command(
                    "edged.cli.serve_main",
                    f"endpoint={endpoint}",
                    f"model={model}",
                    "log_level=warning",
                    "log_format=text",
                    "die_with_parent=1",
                    "follow_updates=0",
                ),
                env=children.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,  # Ctrl-C is for the command, not for its daemon
            )
        try:
            _wait_for(process, endpoint, log)
            yield endpoint
        finally:
            _stop(process)


def _wait_for(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    give_up_s = time.monotonic() + START_S
    while trouble_at(endpoint):
        if process.poll() is not None or time.monotonic() > give_up_s:
            said = log.read_text("utf-8", "replace").strip() or "it says nothing"
            raise OwnerError(f"the private daemon did not start: {said.removeprefix('edged: ')}")
        time.sleep(LOOK_AGAIN_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
