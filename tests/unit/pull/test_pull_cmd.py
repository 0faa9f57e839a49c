"""`edged pull` as a person types it, against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.cli.pull_cmd import parse_rate
from edged.errors import ConfigError
from tests.unit.pull.conftest import World

ROOT = Path(__file__).resolve().parents[3]


def types(world: World, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("EDGED_", "HF_", "XDG_"))}
    env = {"HF_ENDPOINT": world.hub.url, "EDGED_STATE_DIR": str(world.state), "HOME": str(world.state.parent)} | more
    return subprocess.run(
        [sys.executable, "-m", "edged", *words],
        cwd=ROOT,
        env=kept | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_pull_from_nothing_to_a_model_that_is_found(world: World) -> None:
    """What the nano model tells its users to type; through a proxy, since the hub's name leads nowhere."""
    proxied = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": world.hub.url, "NO_PROXY": ""}
    done = types(world, "pull", "phi3.5-mini", "--provider", "cpu", "--limit-rate", "50M", **proxied)
    assert done.returncode == 0, done.stderr
    assert "variant cpu-int4: provider cpu was asked for" in done.stdout
    assert "passed over cuda-int4: it is for cuda, not for cpu" in done.stdout
    assert "left out: configuration_phi3.py" in done.stdout
    assert "installed: phi3.5-mini, version 17edb15f4132-cpu-int4" in done.stdout
    assert "100%" in done.stderr
    asked = len(world.hub.asked)
    again = types(world, "pull", "phi3.5-mini", "--provider", "cpu", "--json")
    facts = json.loads(again.stdout)
    assert (again.returncode, facts["already"], facts["version"]) == (0, True, "17edb15f4132-cpu-int4")
    assert facts["passed_over"] == [{"variant": "cuda-int4", "reason": "it is for cuda, not for cpu"}]
    assert not any("resolve" in path for _, path, _ in world.hub.asked[asked:])
    asked = len(world.hub.asked)
    rows = json.loads(types(world, "models", "--disk", "--json").stdout)
    (found,) = [row for row in rows if row["name"] == "phi3.5-mini"]
    assert found["installed"]["source"].startswith("microsoft/Phi-3.5-mini-instruct-onnx cpu_and_mobile/")
    assert "every byte is as it was installed" in types(world, "verify", "phi3.5-mini").stdout
    assert "is installed in" in types(world, "pull", "phi3.5-mini", "--offline").stdout
    assert types(world, "pull", "phi3.5-mini", HF_HUB_OFFLINE="1").returncode == 0
    assert types(world, "remove", "phi3.5-mini").returncode == 0
    assert len(world.hub.asked) == asked  # none of these went to the network


def test_what_stands_in_the_way_is_said_and_nothing_is_installed(world: World) -> None:
    offline = types(world, "pull", "phi3.5-mini", "--offline")
    assert (offline.returncode, "edged import" in offline.stderr) == (1, True)
    assert world.hub.asked == []
    wanted = ("pull", "phi3.5-mini", "--provider", "cpu")
    quota = types(world, *wanted, EDGED_MODELS_DISK_BYTES="1000000")
    assert (quota.returncode, "models_disk_bytes" in quota.stderr) == (1, True)
    full = types(world, *wanted, EDGED_DISK_RESERVE_BYTES=str(2**49))
    assert (full.returncode, "the disk is too full" in full.stderr) == (1, True)
    world.hub.status = {"/api/": 502}
    later = types(world, *wanted, "--json")
    assert (later.returncode, json.loads(later.stdout)["error"]["code"]) == (4, "try_later")
    assert "Traceback" not in offline.stderr + quota.stderr + full.stderr + later.stderr
    assert not list((world.state / "models").glob("*/active"))


def test_a_repository_that_no_catalog_knows(world: World) -> None:
    repo, folder = "microsoft/Phi-3.5-mini-instruct-onnx", str(world.source.relative_to(world.hub.folder))
    done = types(world, "pull", repo, "--folder", folder, "--name", "own", "--provider", "cpu", "--json")
    assert (done.returncode, json.loads(done.stdout)["name"]) == (0, "own")
    again = types(world, "pull", repo, "--folder", folder, "--name", "nano", "--provider", "cpu")
    assert (again.returncode, "nano ships with edged" in again.stderr) == (1, True)


@pytest.mark.parametrize(("text", "rate"), [("2M", 2_000_000), ("500k", 500_000), ("1.5MB/s", 1_500_000), ("70", 70)])
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "-1", "0", "2T", "2 M"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigError, match="--limit-rate"):
        parse_rate(text)
