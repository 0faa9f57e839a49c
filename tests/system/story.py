"""The service's story on a machine with a real systemd: what an operator would see, step by step.

Each step is a function of the box that raises AssertionError or RuntimeError when the service does not hold. Later
steps build on the state that earlier ones leave.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from machine import Machine

SECRET = "zebra-7413"  # a word of a prompt, which the journal must not hold
STATE_FILE = "/var/lib/edged/models/kept/note.txt"
ANSWER_S = 120.0


@dataclass
class Box:
    """The machine, the packages (first and newer) and what the service's processes were last."""

    machine: Machine
    package: Path
    newer: Path
    notes: list[str] = field(default_factory=list)

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
        return self.machine.call(
            "edged", "ask", "--json", "--max-tokens", "8", f"Say hello to {SECRET}", user=user, timeout_s=ANSWER_S
        )

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


def installs_and_becomes_ready(box: Box) -> str:
    box.machine.run("useradd", "-m", "ada")
    box.machine.run("useradd", "-m", "bob")
    _install(box, box.package)
    took_s = box.until("READY after the model's first answer", box.ready)
    box.machine.run("usermod", "-aG", "edged-clients", "ada")
    assert box.show("SubState") == "running"
    socket = box.machine.run("stat", "-c", "%a %U:%G", "/run/edged", "/run/edged/edged.sock").split("\n")
    assert socket[:2] == ["750 edged:edged-clients", "660 edged:edged-clients"], socket
    state = box.machine.run("stat", "-c", "%a %U", "/var/lib/edged").strip()
    assert state == "700 edged", state
    return f"{took_s:.1f} s to READY; STATUS {box.show('StatusText')!r}"


def _install(box: Box, package: Path) -> None:
    inside = box.machine.root / "root" / package.name
    subprocess.run(["cp", str(package), str(inside)], check=True)
    box.machine.run("dpkg", "-i", f"/root/{package.name}", timeout_s=600)
    inside.unlink()


def answers_its_clients_and_nobody_else(box: Box) -> str:
    status, text = box.ask("ada")
    assert status == 0, text
    assert box.answers(), text
    refused, why = box.ask("bob")
    assert refused == 3, why
    assert "ermission denied" in why, why
    return f"a member: an answer; another user: exit status {refused}, permission denied"


def has_no_network_and_no_rights(box: Box) -> str:
    interfaces = box.machine.run("nsenter", "-t", str(box.front()), "-n", "cat", "/proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"], interfaces
    for pid in (box.front(), box.engine()):
        status = dict(
            line.split(":\t", 1) for line in box.machine.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line
        )
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, status
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
    adjusted = int(box.machine.run("cat", f"/proc/{box.engine()}/oom_score_adj"))
    assert adjusted > int(box.machine.run("cat", f"/proc/{box.front()}/oom_score_adj"))
    return f"lo only, no capabilities, seccomp; the engine's oom_score_adj {adjusted}"


def tells_its_health(box: Box) -> str:
    status, text = box.machine.call("edged", "doctor", "--json", timeout_s=120)
    report = json.loads(text)
    bad = [check for check in report["checks"] if check["level"] == "fail"]
    assert not bad, bad
    assert status in (0, 1), text
    return f"doctor: {len(report['checks'])} checks, none failed"


def replaces_a_killed_engine(box: Box) -> str:
    front, engine = box.front(), box.engine()
    box.kill(engine, "KILL")
    took_s = box.until("another engine answers", lambda: box.engine() not in (0, engine) and box.ready())
    assert box.answers()
    assert box.front() == front
    return f"{took_s:.1f} s"


def restarts_a_killed_front(box: Box) -> str:
    front, engine, restarts = box.front(), box.engine(), int(box.show("NRestarts"))
    box.kill(front, "KILL")
    took_s = box.until("another front is ready", lambda: box.front() not in (0, front) and box.ready())
    assert int(box.show("NRestarts")) == restarts + 1
    assert box.machine.call("kill", "-0", str(engine))[0] != 0, "the old engine outlived its front"
    assert box.answers()
    return f"{took_s:.1f} s"


def replaces_a_stopped_engine(box: Box) -> str:
    front, engine = box.front(), box.engine()
    box.kill(engine, "STOP")
    took_s = box.until("another engine", lambda: box.engine() not in (0, engine) and box.ready())
    assert box.front() == front
    assert "engine hangs" in box.journal()
    assert box.answers()
    return f"{took_s:.1f} s by the front"


def restarts_a_stopped_front(box: Box) -> str:
    front, restarts = box.front(), int(box.show("NRestarts"))
    box.kill(front, "STOP")
    took_s = box.until("the watchdog restarts it", lambda: box.front() not in (0, front) and box.ready(), 180)
    assert int(box.show("NRestarts")) == restarts + 1
    assert re.search(r"[Ww]atchdog timeout", box.journal())
    assert box.answers()
    return f"{took_s:.1f} s by the watchdog"


def outlives_an_engine_that_meets_the_memory_limit(box: Box) -> str:
    """The unit's own MemoryMax where the container owns that controller, else the same limit from outside."""
    front, engine, restarts = box.front(), box.engine(), int(box.show("NRestarts"))
    group = _memory_group(box)
    try:
        _squeeze(box, group, engine)
        took_s = box.until("the engine died", lambda: box.engine() != engine, 60)
    finally:
        _release(group)
    box.until("another engine is ready", lambda: box.engine() not in (0, engine) and box.ready(), 180)
    assert box.front() == front
    assert int(box.show("NRestarts")) == restarts
    assert box.answers()
    return f"killed by the kernel after {took_s:.1f} s, the front kept its pid ({'v2' if group.v2 else 'v1'} group)"


@dataclass(frozen=True)
class _Group:
    path: Path
    v2: bool

    @property
    def limit(self) -> Path:
        return self.path / ("memory.max" if self.v2 else "memory.limit_in_bytes")


def _memory_group(box: Box) -> _Group:
    """A memory cgroup of our own, as this machine has them."""
    v1 = Path("/sys/fs/cgroup/memory")
    base = v1 if v1.is_dir() else Path("/sys/fs/cgroup")
    group = base / "edged-system-test"
    group.mkdir(exist_ok=True)
    if not (group / ("memory.limit_in_bytes" if base == v1 else "memory.max")).exists():
        group.rmdir()
        raise RuntimeError("no memory controller is to be had on this machine")
    return _Group(group, base != v1)


def _squeeze(box: Box, group: _Group, engine: int) -> None:
    """Front and engine into the group, then a limit below what both need as soon as the engine works."""
    outer = [box.machine.outer_pid(box.front()), box.machine.outer_pid(engine)]
    for pid in outer:
        (group.path / "cgroup.procs").write_text(str(pid))
    used = sum(_rss(pid) for pid in outer)
    front_needs = _rss(outer[0])
    limit = max(front_needs + 8 * 2**20, 24 * 2**20)
    assert limit < used, "the engine is too small to be squeezed"
    for _ in range(50):
        with suppress(OSError):  # v1 refuses a limit below what it cannot reclaim at once
            group.limit.write_text(str(limit))
            break
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            box.machine.call("edged", "ask", "--max-tokens", "64", "Count to one hundred", user="ada", timeout_s=20)
        limit += 4 * 2**20
    with suppress(RuntimeError, subprocess.TimeoutExpired):
        box.machine.call("edged", "ask", "--max-tokens", "64", "Count to one hundred", user="ada", timeout_s=20)


def _rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def _release(group: _Group) -> None:
    group.limit.write_text("max" if group.v2 else "-1")
    parent = group.path.parent / "cgroup.procs"
    for pid in (group.path / "cgroup.procs").read_text().split():
        with suppress(OSError):
            parent.write_text(pid)
    with suppress(OSError):
        group.path.rmdir()


def stays_up_with_a_broken_model(box: Box) -> str:
    """A model that cannot be loaded: active, degraded, no restart loop; then the good one again."""
    broken = box.machine.root / "opt/broken-model"
    broken.mkdir()
    (broken / "genai_config.json").write_text("{}")
    _configure(box, 'model = "/opt/broken-model"\n')
    box.machine.run("systemctl", "restart", "edged")
    box.until("degraded is said", lambda: box.show("StatusText").startswith("degraded:"))
    assert box.show("ActiveState") == "active"
    restarts, front = box.show("NRestarts"), box.front()
    time.sleep(5)
    assert (box.show("NRestarts"), box.front()) == (restarts, front)
    said = box.show("StatusText")
    _configure(box, "")
    box.machine.run("systemctl", "restart", "edged")
    box.until("ready again", box.ready)
    return repr(said)[:120]


def gives_up_on_settings_only_the_owner_can_mend(box: Box) -> str:
    _configure(box, "max_clients = 0\n")
    box.machine.run("systemctl", "restart", "edged", check=False)
    box.until("failed", lambda: box.show("ActiveState") == "failed")
    assert box.show("ExecMainStatus") == "78"
    assert "edged.toml: max_clients" in box.journal(20)
    _configure(box, "")
    box.machine.run("systemctl", "reset-failed", "edged")
    box.machine.run("systemctl", "start", "edged")
    box.until("ready again", box.ready)
    return "exit 78, not restarted, the journal names file and key"


def _configure(box: Box, text: str) -> None:
    (box.machine.root / "etc/edged/edged.toml").write_text(text)


def keeps_prompts_out_of_the_journal(box: Box) -> str:
    journal = box.machine.run("journalctl", "--no-pager", check=False)
    assert SECRET not in journal
    lines = box.journal().splitlines()
    assert len(lines) > 10
    return f"{len(lines)} lines, none with a prompt's words"


def drains_and_stops(box: Box) -> str:
    started_s = time.monotonic()
    box.machine.run("systemctl", "stop", "edged")
    took_s = time.monotonic() - started_s
    assert box.show("Result") == "success", box.show("Result")
    assert box.machine.call("pgrep", "-u", "edged")[0] == 1, "a process was left behind"
    assert not (box.machine.root / "run/edged").exists()
    box.machine.run("systemctl", "start", "edged")
    box.until("ready again", box.ready)
    return f"stopped in {took_s:.1f} s, nothing left running"


def comes_back_after_a_reboot(box: Box) -> str:
    box.machine.power_off()
    booted_s = box.machine.boot()
    took_s = box.until("ready after the boot", box.ready)
    assert box.answers()
    return f"boot {booted_s:.0f} s, then {took_s:.1f} s"


def is_upgraded_with_its_state(box: Box) -> str:
    _configure(box, "max_queue = 100\n")
    kept = box.machine.root / STATE_FILE.lstrip("/")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text("a model of the owner's")
    front = box.front()
    _install(box, box.newer)
    took_s = box.until("the newer one is ready", lambda: box.front() not in (0, front) and box.ready())
    assert kept.read_text() == "a model of the owner's"
    assert (box.machine.root / "etc/edged/edged.toml").read_text() == "max_queue = 100\n"
    version = box.machine.run("dpkg-query", "-W", "-f", "${Version}", "edged")
    assert version == "9999", version
    assert box.answers()
    return f"restarted by the package, ready in {took_s:.1f} s, model and settings kept"


def is_removed_and_purged(box: Box) -> str:
    box.machine.run("dpkg", "-r", "edged")
    assert (box.machine.root / STATE_FILE.lstrip("/")).exists(), "remove took a model"
    assert not (box.machine.root / "opt/edged").exists()
    assert box.machine.call("systemctl", "is-active", "edged")[0] != 0
    box.machine.run("dpkg", "-P", "edged")
    left = box.machine.run(
        "find", "/etc", "/opt", "/run", "/usr", "/var", "-xdev", "-name", "*edged*", "-not", "-path", "/var/log/*"
    ).split()
    assert left == [], left
    names = [
        line.split(":")[0]
        for file in ("passwd", "group")
        for line in (box.machine.root / "etc" / file).read_text().splitlines()
    ]
    assert not [name for name in names if "edged" in name], names
    return "no file, user or group left"


STEPS: tuple[Callable[[Box], str], ...] = (
    installs_and_becomes_ready,
    answers_its_clients_and_nobody_else,
    has_no_network_and_no_rights,
    tells_its_health,
    replaces_a_killed_engine,
    restarts_a_killed_front,
    replaces_a_stopped_engine,
    restarts_a_stopped_front,
    outlives_an_engine_that_meets_the_memory_limit,
    stays_up_with_a_broken_model,
    gives_up_on_settings_only_the_owner_can_mend,
    keeps_prompts_out_of_the_journal,
    drains_and_stops,
    comes_back_after_a_reboot,
    is_upgraded_with_its_state,
    is_removed_and_purged,
)
