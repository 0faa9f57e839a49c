"""Updates as an operator has them: root of trust, repository, an admin who asks, the updater's units, and the way back.

The daemon, which has no network, leaves a wish; edged-update.path starts the updater, the only one with a network; it
stages; the daemon tests and takes over. All of them are the units of the package, in their sandboxes.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from box import Box

ROOT = Path(__file__).resolve().parents[2]
FLEET = "srv/fleet"
PORT = 8000
WEB = "fleet-web.service"
PROMPTS = "set the lab fan to 40 percent\nswitch on the kitchen lamp\n"
LENIENT = "update_watch_s = 0.5\nupdate_watch_requests = 0\nupdate_least_speed = 0.01\n"
ADMIN = '[access]\nada = ["chat", "infer", "admin"]\n'
ASKED_S = 200.0
UPDATER_LOG = ("journalctl", "-u", "edged-update", "--no-pager")


def updates_from_a_stick(box: Box) -> str:
    """Without a network: the repository is a folder. Who is no admin is refused; who is one needs no root."""
    if missing := _publish(box):
        return f"left out: {missing}"
    _follow(box, f"/{FLEET}/first")
    refused, why = box.machine.call("edged", "update", "apply", user="ada", timeout_s=ASKED_S)
    assert refused != 0, why
    assert "needs the right `admin`" in why, why
    box.configure(LENIENT + ADMIN)
    box.machine.run("systemctl", "reload", "edged")
    assert _ask(box, "check")["outcome"] == "available"
    done = _ask(box, "apply")
    assert (done["outcome"], done["active"]) == ("taken", "1.0"), done
    assert done["last"]["bytes_saved"] > done["last"]["bytes_total"] // 2, done["last"]
    _serves(box, "1.0")
    return f"1.0 serves; {done['last']['bytes_saved']} of {done['last']['bytes_total']} bytes were here already"


def updates_over_http(box: Box) -> str:
    """A web server on the machine's own address: the updater's unit reaches it, the daemon's does not."""
    if not _is_published(box):
        return "left out"
    _follow(box, f"http://127.0.0.1:{PORT}/")
    serve = ("python3", "-m", "http.server", str(PORT), "--bind", "127.0.0.1", "--directory", f"/{FLEET}/second")
    box.machine.run("systemd-run", f"--unit={WEB}", "-p", "DynamicUser=yes", *serve)
    box.until("the web server", lambda: f":{PORT:04X} " in box.machine.run("cat", "/proc/net/tcp"))
    done = _ask(box, "apply")
    assert (done["outcome"], done["active"], done["previous"]) == ("taken", "2.0", "1.0"), done
    fetched = done["last"]["bytes_total"] - done["last"]["bytes_saved"]
    assert fetched > 1_000_000, done["last"]
    assert "model.onnx.data" in box.machine.run("journalctl", "-u", WEB, "--no-pager")
    _serves(box, "2.0")
    return f"2.0 serves; {fetched} bytes came by HTTP"


def goes_back_by_hand(box: Box) -> str:
    """The version before serves at once, and nothing changes until the hold is taken back."""
    if not _is_published(box):
        return "left out"
    shown = _ask(box, "status")
    left, before = shown["active"], shown.get("previous")
    done = _ask(box, "rollback", "--reason", "the lamp flickers")
    assert (done.get("active"), done["left"]) == (before, left), done
    _serves(box, before)
    assert _ask(box, "status")["hold"] == f"rolled back from {left}: the lamp flickers"
    assert _ask(box, "apply")["outcome"] == "up_to_date"  # the one that was left is refused here
    box.machine.run("edged", "update", "hold", "--off", user="ada")
    done = _ask(box, "apply", "--again")
    assert (done["outcome"], done["active"]) == ("taken", left), done
    assert box.answers()
    _serves(box, left)
    return f"from {left} to {before or 'the one that shipped'}, held; and {left} again when it was asked for"


def bears_one_who_asks_again_and_again(box: Box) -> str:
    """One run of the updater after the other: no limit of systemd's may end the unit that starts it."""
    if not _is_published(box):
        return "left out"
    for _ in range(8):
        assert _ask(box, "check")["outcome"] == "up_to_date"
    states = box.machine.run("systemctl", "is-active", "edged-update.path", "edged-update.timer").split()
    assert states == ["active", "active"], states
    box.machine.run("systemctl", "start", "edged-update")  # as the timer does, every hour
    box.until("the day's look was had", lambda: "hours ago; nothing to do" in box.machine.run(*UPDATER_LOG))
    box.machine.run("systemctl", "stop", WEB)
    box.configure("")
    box.machine.run("systemctl", "reload", "edged")
    return "8 runs, and the unit that starts them waits for the next"


def _ask(box: Box, *words: str) -> dict[str, Any]:
    """`edged update ...` as an admin who is not root: what the daemon answered."""
    said = box.machine.run("edged", "update", *words, "--json", user="ada", timeout_s=ASKED_S)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def _serves(box: Box, version: str | None) -> None:
    """The version proved itself, and both commands that tell it say so."""

    def is_settled() -> bool:
        shown = _ask(box, "status")
        return shown.get("active") == version and not shown.get("testing")

    box.until(f"{version or 'the one that shipped'} is settled", is_settled)
    told = json.loads(box.machine.run("edged", "status", "--json", user="ada"))["models"][0]
    assert (told["name"], told.get("version")) == ("nano", version), told
    assert box.answers()
    assert box.machine.run("systemctl", "show", "edged-update", "--value", "-p", "Result").strip() == "success"


def _follow(box: Box, source: str) -> None:
    """The owner's two files."""
    folder = box.machine.root / "etc/edged"
    (folder / "root.json").write_bytes((box.machine.root / FLEET / "root.json").read_bytes())
    (folder / "update.toml").write_text(f'source = "{source}"\n')


def _publish(box: Box) -> str:
    """Golden prompts are recorded on the machine, releases are made at the publisher's desk; what lacks for that."""
    if not box.publisher.exists() or subprocess.run([box.publisher, "-c", "import cryptography, tuf"]).returncode:
        return f"the publisher's desk needs {box.publisher} with edged[fleet]; tools/test makes it"
    root = box.machine.root
    (root / "root/prompts.txt").write_text(PROMPTS)
    box.machine.run("/opt/edged/bin/edged-fleet", "golden", "/root/prompts.txt", "/root/golden.json")
    command = [box.publisher, ROOT / "tests/system/publish.py", root / FLEET, root / "root/golden.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return ""


def _is_published(box: Box) -> bool:
    return (box.machine.root / FLEET / "root.json").exists()
