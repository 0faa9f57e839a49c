"""The machine with the service on it, as the story's steps see it. Owns no state but what is on the machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from machine import Machine

SECRET = "zebra-7413"  # a word of a prompt, which the journal must not hold
ENDPOINT = "ipc:///run/edged/edged.sock"
ANSWER_S = 120.0


@dataclass
class Box:
    """The machine, the packages (first and newer), and a Python of the project's for the publisher's desk."""

    machine: Machine
    package: Path
    newer: Path
    publisher: Path

    def show(self, name: str) -> str:
        """One property of edged.service."""
        return self.machine.run("systemctl", "show", "edged", "--value", "-p", name).strip()

    def front(self) -> int:
        """The front's pid inside."""
        return int(self.show("MainPID"))

    def engine(self) -> int:
        """The engine's pid inside, 0 when there is none."""
        found = self.machine.run("pgrep", "-f", "edged.engine.worker", check=False).split()
        return int(found[0]) if found else 0

    def ask(self, user: str = "ada") -> tuple[int, str]:
        """One short question as that user: exit status, and the answer's JSON or what was said instead."""
        question = ("edged", "ask", "--json", "-e", ENDPOINT, "--max-tokens", "8", f"Say hello to {SECRET}")
        return self.machine.call(*question, user=user, timeout_s=ANSWER_S)

    def answers(self) -> bool:
        """Whether a member of the group gets tokens."""
        status, text = self.ask()
        return status == 0 and bool(json.loads(text.splitlines()[-1])["usage"]["completion_tokens"])

    def until(self, what: str, holds: Callable[[], bool], limit_s: float = 120.0) -> float:
        """Seconds until `holds`. Raises AssertionError with the journal's end when it does not in `limit_s`."""
        started_s = time.monotonic()
        while True:
            with suppress(RuntimeError, ValueError):
                if holds():
                    return time.monotonic() - started_s
            if time.monotonic() - started_s > limit_s:
                raise AssertionError(f"not within {limit_s:.0f} s: {what}\n{self.journal(30)}")
            time.sleep(0.3)

    def journal(self, lines: int = 10_000) -> str:
        """The service's log."""
        return self.machine.run("journalctl", "-u", "edged", "--no-pager", "-n", str(lines), check=False)

    def ready(self) -> bool:
        return self.show("ActiveState") == "active" and "ready" in self.show("StatusText")

    def kill(self, pid: int, signal: str) -> None:
        self.machine.run("kill", f"-{signal}", str(pid))

    def configure(self, text: str) -> None:
        """The service's settings; in force after a reload or a restart."""
        (self.machine.root / "etc/edged/edged.toml").write_text(text)
