"""The unit files as systemd itself judges them, without one that runs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edged.errors import OwnerError
from edged.service.units import (
    METRICS_UNIT,
    SERVICE,
    TCP_SOCKET,
    UPDATE_UNITS,
    DeviceFacts,
    devices_drop_in,
    shipped,
    tcp_socket,
)

ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not here (Debian: apt install systemd)")

CARD = DeviceFacts("NVIDIA RTX A2000", ("/dev/nvidia0", "/dev/nvidiactl", "/dev/nvidia-uvm"), ("video",))
NPU = DeviceFacts("Intel NPU", ("/dev/accel/accel0",), ("render",))


def _place(folder: Path, drop_in: str | None = None) -> Path:
    """All units with a program that exists here, as they would lie in /etc/systemd/system."""
    for name in (SERVICE, METRICS_UNIT, *UPDATE_UNITS):
        (folder / name).write_text(shipped(name, "/bin/true"))
    (folder / TCP_SOCKET).write_text(tcp_socket("tcp://0.0.0.0:5577") or "")
    if drop_in is not None:
        (folder / f"{SERVICE}.d").mkdir()
        (folder / f"{SERVICE}.d/50.conf").write_text(drop_in)
    return folder


def _exposure(folder: Path, unit: str) -> float:
    done = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", "--no-pager", str(folder / unit)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{folder}:", "LC_ALL": "C.UTF-8"},
        timeout=60,
    )
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    return float(found[1])


@needs_systemd
@pytest.mark.parametrize("unit", [SERVICE, METRICS_UNIT, TCP_SOCKET, *UPDATE_UNITS])
def test_systemd_has_nothing_to_say_against_a_unit(unit: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ANALYZE), "verify", "--recursive-errors=yes", str(_place(tmp_path) / unit)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_a_wrong_unit_is_noticed(tmp_path: Path) -> None:
    """The check above can fail: a misspelt setting is on stderr."""
    broken = _place(tmp_path) / SERVICE
    broken.write_text(broken.read_text().replace("WatchdogSec=", "WatchdogSeconds="))
    done = subprocess.run([str(ANALYZE), "verify", str(broken)], capture_output=True, text=True, timeout=60)
    assert "WatchdogSeconds" in done.stderr


@needs_systemd
@pytest.mark.parametrize(
    ("drop_in", "most"),
    [
        (None, 0.5),
        (devices_drop_in((CARD,)), 1.0),
        (devices_drop_in((NPU,)), 1.0),
    ],
    ids=["cpu", "gpu", "npu"],
)
def test_exposure_stays_below_its_bar(drop_in: str | None, most: float, tmp_path: Path) -> None:
    assert _exposure(_place(tmp_path, drop_in), SERVICE) <= most


def test_units_name_the_program_that_installs_them() -> None:
    text = shipped(SERVICE, "/srv/edged/bin/edged")
    assert "ExecStart=/srv/edged/bin/edged serve\n" in text
    assert "/opt/edged" not in text


@pytest.mark.parametrize("program", ["edged", "/opt/my apps/edged", "/opt/50%/edged", "/opt/$HOME/edged", "/opt/a\nb"])
def test_a_path_that_a_unit_cannot_hold_is_refused(program: str) -> None:
    with pytest.raises(OwnerError, match="unit file cannot name"):
        shipped(SERVICE, program)


def test_only_found_devices_are_let_in() -> None:
    text = devices_drop_in((CARD, NPU))
    assert text is not None
    assert re.findall(r"^DeviceAllow=(\S+) rw$", text, re.M) == [
        "/dev/accel/accel0",
        "/dev/nvidia-uvm",
        "/dev/nvidia0",
        "/dev/nvidiactl",
    ]
    assert "SupplementaryGroups=render video\n" in text


def test_no_device_means_no_drop_in() -> None:
    assert devices_drop_in(()) is None
    assert devices_drop_in((DeviceFacts("Hailo-8 family", (), ()),)) is None


@pytest.mark.parametrize(
    ("endpoint", "listens"),
    [("tcp://*:5577", "5577"), ("tcp://192.168.7.1:99", "192.168.7.1:99"), ("tcp://[::1]:5577", "[::1]:5577")],
)
def test_a_tcp_endpoint_becomes_a_socket_of_systemd(endpoint: str, listens: str) -> None:
    assert f"ListenStream={listens}\n" in (tcp_socket(endpoint) or "")
    assert tcp_socket("") is None


@pytest.mark.parametrize("endpoint", ["tcp://eth0:5577", "ipc:///x", "tcp://1.2.3.4:5577\nExecStartPre=/bin/x", "5577"])
def test_an_endpoint_that_a_unit_cannot_hold_is_refused(endpoint: str) -> None:
    with pytest.raises(OwnerError, match="tcp_endpoint"):
        tcp_socket(endpoint)
