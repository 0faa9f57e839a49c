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
from pathlib import Path

from box import SECRET, Box
from memory_group import MemoryGroup
from updates import bears_one_who_asks_again_and_again, goes_back_by_hand, updates_from_a_stick, updates_over_http

STATE_FILE = "/var/lib/edged/models/kept/note.txt"


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
    assert status == 0, text
    box.machine.run("edged", "doctor", "--bundle", "/root/support.tar.gz")
    packed = box.machine.run("tar", "-xzOf", "/root/support.tar.gz")
    assert "model ready" in packed, "the service's log is missing"
    assert SECRET not in packed
    return f"doctor: {len(report['checks'])} checks, none failed; the bundle has the log and no prompt"


def is_watched_by_prometheus(box: Box) -> str:
    """The unit for metrics: off until enabled, for this box alone, as a user that exists only while it runs."""
    assert box.machine.call("systemctl", "is-active", "edged-metrics")[0] != 0
    box.machine.run("systemctl", "enable", "--now", "edged-metrics")
    scrape = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics', timeout=20).read().decode())"
    box.until("a scrape", lambda: "edged_up 1.0" in box.machine.run("python3", "-c", scrape))
    told = box.machine.run("python3", "-c", scrape)
    for name in (
        "edged_model_ready",
        "edged_ttft_seconds_count",
        "edged_kv_budget_bytes",
        "edged_engine_resident_bytes",
    ):
        assert f"{name}{{" in told, name
    return f"{sum(not line.startswith('#') for line in told.splitlines())} series"


def serves_tcp_to_who_has_a_key(box: Box) -> str:
    """Systemd listens and hands the socket over; the service gets no network by it."""
    tcp = ("-e", "tcp://127.0.0.1:5577")
    box.configure('tcp_endpoint = "tcp://127.0.0.1:5577"\n')
    box.machine.run("edged", "keys", "new", "lab", "--out", "/tmp/lab.key")
    box.machine.run("chown", "bob", "/tmp/lab.key")
    box.machine.run("edged", "install")
    box.until("ready with a socket for TCP", box.ready)
    box.machine.run("edged", "--key", "/tmp/lab.key", "ask", *tcp, "--max-tokens", "4", "hello", user="bob")
    refused, why = box.machine.call("edged", "ask", *tcp, "hello", user="ada")
    assert refused == 3, why
    assert "a key is needed" in why, why
    interfaces = box.machine.run("nsenter", "-t", str(box.front()), "-n", "cat", "/proc/net/tcp").splitlines()[1:]
    assert not interfaces, interfaces
    box.machine.run("edged", "keys", "revoke", "lab")
    refused, why = box.machine.call("edged", "--key", "/tmp/lab.key", "ping", *tcp, user="bob")
    assert refused == 3, why
    assert "does not know this key" in why, why
    box.machine.run("rm", "/tmp/lab.key")
    box.configure("")
    box.machine.run("edged", "install")
    box.until("ready without", box.ready)
    assert box.machine.call("systemctl", "is-active", "edged-tcp.socket")[0] != 0
    assert not (box.machine.root / "etc/systemd/system/edged-tcp.socket").exists()
    return "an answer with a key, none without, none after it was revoked; no network in the service"


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
    """A limit that front, engine and a third process hit together: the kernel must choose the engine."""
    front, restarts = box.front(), int(box.show("NRestarts"))
    with MemoryGroup() as group:
        group.take(box.machine.outer_pid(front))
        first = box.engine()
        box.kill(first, "KILL")  # its successor is charged to the group from its first page on
        box.until("an engine in the group", lambda: box.engine() not in (0, first) and box.ready())
        engine = box.engine()
        assert box.machine.outer_pid(engine) in group.pids()
        took_s = group.overrun(box.machine.outer_pid(engine))
        assert box.engine() != engine, "the engine was not the one to go"
        assert box.front() == front, "the front was killed"
    box.until("another engine is ready", lambda: box.engine() not in (0, engine) and box.ready(), 180)
    assert (box.front(), int(box.show("NRestarts"))) == (front, restarts)
    assert box.answers()
    return f"the kernel took the engine after {took_s:.1f} s, the front kept its pid ({group.version})"


def stays_up_with_a_broken_model(box: Box) -> str:
    """A model that cannot be loaded: active, degraded, no restart loop; then the good one again."""
    broken = box.machine.root / "opt/broken-model"
    broken.mkdir()
    (broken / "genai_config.json").write_text("{}")
    box.configure('model = "/opt/broken-model"\n')
    box.machine.run("systemctl", "restart", "edged")
    box.until("degraded is said", lambda: box.show("StatusText").startswith("degraded:"))
    assert box.show("ActiveState") == "active"
    restarts, front = box.show("NRestarts"), box.front()
    time.sleep(5)
    assert (box.show("NRestarts"), box.front()) == (restarts, front)
    said = box.show("StatusText")
    box.configure("")
    box.machine.run("systemctl", "restart", "edged")
    box.until("ready again", box.ready)
    return repr(said)[:120]


def gives_up_on_settings_only_the_owner_can_mend(box: Box) -> str:
    box.configure("max_clients = 0\n")
    box.machine.run("systemctl", "restart", "edged", check=False)
    box.until("failed", lambda: box.show("ActiveState") == "failed")
    assert box.show("ExecMainStatus") == "78"
    assert "edged.toml: max_clients" in box.journal(20)
    box.configure("")
    box.machine.run("systemctl", "reset-failed", "edged")
    box.machine.run("systemctl", "start", "edged")
    box.until("ready again", box.ready)
    return "exit 78, not restarted, the journal names file and key"


def keeps_prompts_out_of_the_journal(box: Box) -> str:
    journal = box.machine.run("journalctl", "--no-pager", check=False)
    assert SECRET not in journal
    lines = box.journal().splitlines()
    assert len(lines) > 10
    return f"{len(lines)} lines, none with a prompt's words"


def looks_for_updates_when_asked(box: Box) -> str:
    """The daemon's way to ask: a file. Without a source the updater has nothing to do, says so, and ends well."""
    timers = box.machine.run("systemctl", "list-timers", "--no-pager", "edged-update.timer")
    assert "edged-update.timer" in timers, timers
    box.machine.run("touch", "/var/lib/edged/update/wanted", user="edged")
    wanted = box.machine.root / "var/lib/edged/update/wanted"
    box.until("the request was taken", lambda: not wanted.exists())
    said = "no source of updates is set"
    journal = ("journalctl", "-u", "edged-update", "--no-pager")
    box.until("it says so", lambda: said in box.machine.run(*journal))
    box.until("it ended", lambda: "Finished" in box.machine.run(*journal))
    return "started by the file, ended by itself"


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
    box.configure("max_queue = 100\n")
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
    kept = (box.machine.root / STATE_FILE.lstrip("/")).exists()  # by the step before, where it was told
    box.machine.run("dpkg", "-r", "edged")
    if kept:
        assert (box.machine.root / STATE_FILE.lstrip("/")).exists(), "remove took a model"
    assert not (box.machine.root / "opt/edged").exists()
    assert box.machine.call("systemctl", "is-active", "edged")[0] != 0
    box.machine.run("dpkg", "-P", "edged")
    _nothing_is_left(box)
    return "no file, user or group left"


def is_installed_and_removed_by_its_own_command(box: Box) -> str:
    """The same environment without the package, as pip would have made it."""
    subprocess.run(["dpkg-deb", "-x", str(box.package), str(box.machine.root / "root/unpacked")], check=True)
    box.machine.run("mv", "/root/unpacked/opt/edged", "/opt/edged")
    subprocess.run(["rm", "-rf", str(box.machine.root / "root/unpacked")], check=True)
    edged = "/opt/edged/bin/edged"
    planned = box.machine.run(edged, "install", "--dry-run")
    written = box.machine.run(edged, "install")
    for path in re.findall(r"^wrote +(\S+)$", written, re.MULTILINE):
        assert f"--- {path}" in planned, path
    box.until("ready", box.ready)
    box.machine.run("ln", "-s", edged, "/usr/bin/edged")
    box.machine.run("usermod", "-aG", "edged-clients", "ada")
    assert box.answers()
    front = box.front()
    again = box.machine.run(edged, "install")
    assert "wrote" not in again, again
    assert box.front() == front, "an unchanged service was restarted"
    box.machine.run(edged, "uninstall")
    assert (box.machine.root / "var/lib/edged").is_dir()
    box.machine.run(edged, "uninstall", "--purge")
    assert "nothing was installed" in box.machine.run(edged, "uninstall")
    box.machine.run("rm", "-r", "/opt/edged", "/usr/bin/edged")
    _nothing_is_left(box)
    return "installed, again without a change, removed, purged"


def _nothing_is_left(box: Box) -> None:
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


STEPS: tuple[Callable[[Box], str], ...] = (
    installs_and_becomes_ready,
    answers_its_clients_and_nobody_else,
    has_no_network_and_no_rights,
    tells_its_health,
    is_watched_by_prometheus,
    serves_tcp_to_who_has_a_key,
    replaces_a_killed_engine,
    restarts_a_killed_front,
    replaces_a_stopped_engine,
    restarts_a_stopped_front,
    outlives_an_engine_that_meets_the_memory_limit,
    stays_up_with_a_broken_model,
    gives_up_on_settings_only_the_owner_can_mend,
    keeps_prompts_out_of_the_journal,
    looks_for_updates_when_asked,
    updates_from_a_stick,
    updates_over_http,
    goes_back_by_hand,
    bears_one_who_asks_again_and_again,
    drains_and_stops,
    comes_back_after_a_reboot,
    is_upgraded_with_its_state,
    is_removed_and_purged,
    is_installed_and_removed_by_its_own_command,
)

SHORT = (
    installs_and_becomes_ready,
    answers_its_clients_and_nobody_else,
    has_no_network_and_no_rights,
    serves_tcp_to_who_has_a_key,
    replaces_a_killed_engine,
    restarts_a_killed_front,
    keeps_prompts_out_of_the_journal,
    updates_from_a_stick,
    goes_back_by_hand,
    drains_and_stops,
    is_removed_and_purged,
)
