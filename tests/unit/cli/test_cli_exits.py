"""Exit statuses and error lines: what a script sees of each kind of error."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edged.cli.app import Commands
from edged.cli.exits import ERROR, NO_DAEMON, TRY_LATER, USAGE, error_map, exit_status
from edged.client.errors import BadReply, ConnectionLost, DaemonNotFound, NoReply, UnknownError, UsageError
from edged.errors import (
    Busy,
    ConfigError,
    EdgedError,
    EngineLost,
    InvalidRequest,
    ModelError,
    Quarantined,
    TooLarge,
    Unavailable,
)

NOT_FOUND = DaemonNotFound((("ipc:///x", "no such socket"),))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("m"), ERROR),
        (TooLarge("m", max_tokens_fit=1), ERROR),
        (Quarantined("m"), ERROR),
        (ConfigError("m"), ERROR),
        (ModelError(Path("/m"), "f", "r"), ERROR),
        (BadReply("m"), ERROR),
        (UsageError("m"), USAGE),
        (NOT_FOUND, NO_DAEMON),
        (Busy("m"), TRY_LATER),
        (Unavailable("m"), TRY_LATER),
        (EngineLost("m"), TRY_LATER),
        (NoReply("m"), TRY_LATER),
        (ConnectionLost("m"), TRY_LATER),
        (UnknownError("new", "m", retryable=True), TRY_LATER),
        (UnknownError("new", "m", retryable=False), ERROR),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_has_its_status_and_is_a_line_of_json(error: EdgedError, status: int) -> None:
    assert exit_status(error) == status
    shown = json.loads(json.dumps(error_map(error)))["error"]
    assert shown["retryable"] == (status == TRY_LATER)
    assert shown["code"]
    assert shown["message"]


def test_json_carries_what_helps_to_try_again() -> None:
    assert error_map(Busy("m", retry_after_ms=7))["error"] == {
        "code": "busy",
        "message": "m",
        "retryable": True,
        "retry_after_ms": 7,
    }
    assert error_map(TooLarge("m", max_tokens_fit=9))["error"]["max_tokens_fit"] == 9  # type: ignore[index]
    assert error_map(NOT_FOUND)["error"]["code"] == "no_daemon"  # type: ignore[index]


@pytest.mark.parametrize("name", Commands.table)
def test_every_command_is_there_and_helps(name: str) -> None:
    command = Commands(name="edged").get_command(None, name)
    assert command.name == name
    assert command.help


def test_a_client_command_imports_neither_rich_nor_asyncio_nor_the_daemon() -> None:
    """What `edged ping` costs on a small board is its imports."""
    program = (
        "import sys, runpy\nsys.argv = ['edged', 'ping', '-e', 'ipc:///nowhere/x']\n"
        "try: runpy.run_module('edged', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 3, end.code\n"
        "print([name for name in ('rich', 'zmq.asyncio', 'edged.config', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_daemon_carries_neither_typer_nor_rich() -> None:
    program = (
        "import sys, edged.cli.serve_main\nprint([n for n in ('typer', 'rich', 'onnxruntime') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_bench_names_a_figure_that_it_does_not_have() -> None:
    command = [sys.executable, "-m", "edged", "bench", "--only", "speed,nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == USAGE
    assert "nonsense" in done.stderr
    assert "session" in done.stderr
