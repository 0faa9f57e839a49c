"""A recorded tree holds what the probe reads and nothing that names the box or its people."""

from __future__ import annotations

import socket
from pathlib import Path

from edged.hardware.memory import read_memory
from edged.hardware.probe import probe
from edged.hardware.record import record
from tests.unit.hardware.trees import cgroup2_mount, meminfo, plant, v2_group

SECRET = "10000000fe69593"
CONTAINER = "4f1c2b9d8e7a6f5040302010ffeeddccbbaa99887766554433221100aabbccdd"


def everything(files: Path) -> str:
    texts = [
        str(path.relative_to(files)) + path.read_text(errors="replace") for path in files.rglob("*") if path.is_file()
    ]
    return "\n".join(texts)


def test_serials_names_and_addresses_are_gone_and_limits_are_still_there(tmp_path: Path) -> None:
    group = f"user.slice/user-1000.slice/app-annas_chat.scope/docker-{CONTAINER}.scope"
    box = {
        "proc/cpuinfo": f"processor\t: 0\nFeatures\t: asimd\n\nSerial\t\t: {SECRET}\nModel\t\t: Board\n",
        "proc/meminfo": meminfo(4 << 20, 3 << 20),
        "proc/self/cgroup": f"5:cpuset:/annas_chat\n0::/{group}\n",
        "proc/self/mountinfo": "22 1 8:2 / /home/anna rw - ext4 /dev/disk/by-uuid/annas-disk rw\n" + cgroup2_mount(),
        "proc/self/status": "Name:\tannas_chat\nUid:\t1000\nCpus_allowed_list:\t0\n",
        **v2_group(group, limit=str(1 << 30), current=1 << 20),
        **v2_group("user.slice", limit=str(2 << 30), current=1 << 20),
        "sys/class/drm/renderD128/device/uevent": (
            "DRIVER=i915\nPCI_ID=8086:7D55\nMAC=aa:bb:cc:dd:ee:0f\nID=123e4567-e89b-12d3-a456-426614174000\n"
        ),
        "sys/class/dmi/id/product_serial": SECRET,
        "home/anna/notes.txt": "nobody asked for this",
        "usr/share/misc/pci.ids": "1002  AMD\n\t15bf  Phoenix1\n8086  Intel\n\t7d1d  Some NPU\n\t7d55  Some GPU\n",
    }
    source, target = plant(tmp_path / "box", box), tmp_path / "record"
    written = record(target, source)
    kept = everything(target)
    for word in (SECRET, CONTAINER, "anna", "aa:bb:cc", "123e4567", "nobody asked", "Phoenix1", "product_serial"):
        assert word not in kept
    assert "00:00:00:00:00:00" in kept
    assert sorted(written) == sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert probe(target) == probe(source)
    assert probe(target).accelerators[0].name == "Some GPU"
    original, recorded = read_memory(source), read_memory(target)
    assert [group.limit_bytes for group in recorded.cgroups] == [1 << 30, 2 << 30]
    assert [group.used_bytes for group in recorded.cgroups] == [group.used_bytes for group in original.cgroups]


def test_this_machine_can_be_recorded(tmp_path: Path) -> None:
    record(tmp_path)
    here, there = probe(), probe(tmp_path)
    assert (there.board, there.kernel, there.cpu.features) == (here.board, here.kernel, here.cpu.features)
    assert there.memory.total_bytes == here.memory.total_bytes
    assert len(read_memory(tmp_path).cgroups) == len(read_memory().cgroups)
    own = [path for path in tmp_path.rglob("*") if path.is_file() and path.is_relative_to(tmp_path / "proc/self")]
    assert own
    assert not any(f" {socket.gethostname()} " in path.read_text() for path in own)
