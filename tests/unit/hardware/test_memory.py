"""How much memory may still be taken: the machine, cgroups of both versions, and files that lie or are missing."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edged.hardware.memory import process_pss, process_rss, read_memory
from tests.unit.hardware.trees import cgroup1_mount, cgroup2_mount, meminfo, plant, v1_group, v2_group

MIB, GIB = 1 << 20, 1 << 30


def test_no_cgroup_means_mem_available_and_swap_is_not_counted(tmp_path: Path) -> None:
    reading = read_memory(plant(tmp_path, {"proc/meminfo": meminfo(8 << 20, 6 << 20, swap_kib=16 << 20)}))
    assert (reading.total_bytes, reading.headroom_bytes) == (8 * GIB, 6 * GIB)
    assert (reading.limit_bytes, reading.usable_total_bytes, reading.binding) == (None, 8 * GIB, "machine")


def test_v2_the_tightest_ancestor_binds_and_page_cache_is_not_used_memory(tmp_path: Path) -> None:
    stat = (
        f"anon {500 * MIB}\nfile {900 * MIB}\nshmem {100 * MIB}\ninactive_file {300 * MIB}\nactive_file {500 * MIB}\n"
    )
    tree = {
        "proc/meminfo": meminfo(8 << 20, 7 << 20),
        "proc/self/cgroup": "0::/system.slice/edged.service\n",
        "proc/self/mountinfo": cgroup2_mount(),
        **v2_group("system.slice/edged.service", limit=str(4 * GIB), current=1400 * MIB, stat=stat),
        **v2_group("system.slice", limit=str(3 * GIB), current=2600 * MIB, stat=stat),
    }
    reading = read_memory(plant(tmp_path, tree))
    service, slice_ = reading.cgroups
    assert service.used_bytes == 600 * MIB  # anon and shmem; 800 MiB of cache can go
    assert reading.headroom_bytes == slice_.headroom_bytes == 3 * GIB - 1800 * MIB
    assert reading.binding == "/sys/fs/cgroup/system.slice"
    assert reading.limit_bytes == reading.usable_total_bytes == 3 * GIB
    assert reading.problems == ()


def test_v2_memory_high_is_a_limit_too(tmp_path: Path) -> None:
    tree = {
        "proc/meminfo": meminfo(8 << 20, 7 << 20),
        "proc/self/cgroup": "0::/a\n",
        "proc/self/mountinfo": cgroup2_mount(),
        **v2_group("a", limit=str(4 * GIB), high=str(2 * GIB), current=GIB),
    }
    assert read_memory(plant(tmp_path, tree)).headroom_bytes == GIB


def test_v1_the_tightest_of_nested_groups_binds(tmp_path: Path) -> None:
    tree = {
        "proc/meminfo": meminfo(16 << 20, 15 << 20),
        "proc/self/cgroup": "5:devices:/\n4:memory:/box/edged\n0::/\n",
        "proc/self/mountinfo": cgroup1_mount() + cgroup2_mount("/sys/fs/cgroup/unified"),
        **v1_group(
            "box/edged", usage=2 * GIB, stat=f"total_inactive_file {GIB}\nhierarchical_memory_limit {3 * GIB}\n"
        ),
        **v1_group("box", limit=str(3 * GIB), usage=2560 * MIB, stat=f"total_active_file {MIB}\n"),
        **v1_group("", usage=3 * GIB),
    }
    reading = read_memory(plant(tmp_path, tree))
    assert [(group.path.rsplit("/", 1)[1], group.limit_bytes) for group in reading.cgroups] == [
        ("edged", 3 * GIB),
        ("box", 3 * GIB),
    ]
    assert reading.headroom_bytes == 3 * GIB - 2559 * MIB


def test_v1_a_limit_on_an_ancestor_that_a_container_cannot_see(tmp_path: Path) -> None:
    """Without a cgroup namespace the mount shows only our part; the kernel still tells the limit above it."""
    tree = {
        "proc/meminfo": meminfo(16 << 20, 15 << 20),
        "proc/self/cgroup": "4:memory:/docker/0123\n",
        "proc/self/mountinfo": cgroup1_mount(mount_root="/docker/0123"),
        **v1_group("", usage=256 * MIB, stat=f"hierarchical_memory_limit {GIB}\n"),
    }
    reading = read_memory(plant(tmp_path, tree))
    assert (reading.limit_bytes, reading.headroom_bytes) == (GIB, 768 * MIB)


@pytest.mark.parametrize("unlimited", ["9223372036854771712", "9223372036854710272", "8796093018112", "-1"])
def test_v1_no_limit_is_written_as_a_very_large_number(tmp_path: Path, unlimited: str) -> None:
    tree = {
        "proc/meminfo": meminfo(8 << 20, 7 << 20),
        "proc/self/cgroup": "4:memory:/\n",
        "proc/self/mountinfo": cgroup1_mount(),
        **v1_group("", limit=unlimited, usage=GIB, stat=f"hierarchical_memory_limit {unlimited}\n"),
    }
    reading = read_memory(plant(tmp_path, tree))
    assert (reading.cgroups, reading.problems, reading.headroom_bytes) == ((), (), 7 * GIB)


def test_a_container_with_its_own_cgroup_namespace(tmp_path: Path) -> None:
    """lxc and podman: we are "/" and the mount point itself carries our limit."""
    tree = {
        "proc/meminfo": meminfo(8 << 20, 7 << 20),
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": cgroup2_mount(mount_root="/"),
        **v2_group("", limit=str(GIB), current=300 * MIB),
    }
    assert read_memory(plant(tmp_path, tree)).headroom_bytes == GIB - 300 * MIB


def test_a_process_outside_its_namespace_root_reads_what_is_mounted(tmp_path: Path) -> None:
    tree = {
        "proc/meminfo": meminfo(8 << 20, 7 << 20),
        "proc/self/cgroup": "0::/../../elsewhere\n",
        "proc/self/mountinfo": cgroup2_mount(),
        **v2_group("", limit=str(GIB), current=0),
    }
    assert read_memory(plant(tmp_path, tree)).limit_bytes == GIB


@pytest.mark.parametrize("garbage", ["", "lots", "12 MB", "0x10", "1e9", "\x00\x01", "٣٤", "-5"])
def test_a_limit_that_is_garbage_is_no_limit_and_is_told(tmp_path: Path, garbage: str) -> None:
    tree = {
        "proc/meminfo": meminfo(8 << 20, 7 << 20),
        "proc/self/cgroup": "0::/a\n",
        "proc/self/mountinfo": cgroup2_mount(),
        **v2_group("a", limit=garbage),
        **v2_group("", limit=str(2 * GIB), current=GIB),
    }
    reading = read_memory(plant(tmp_path, tree))
    assert reading.limit_bytes == 2 * GIB
    assert reading.headroom_bytes == GIB
    assert [problem.partition(":")[0] for problem in reading.problems] == ["/sys/fs/cgroup/a/memory.max"]


def test_usage_that_is_garbage_is_told(tmp_path: Path) -> None:
    tree = {
        "proc/meminfo": meminfo(8 << 20, 7 << 20),
        "proc/self/cgroup": "0::/a\n",
        "proc/self/mountinfo": cgroup2_mount(),
        **v2_group("a", limit=str(GIB)),
        "sys/fs/cgroup/a/memory.current": "?",
    }
    reading = read_memory(plant(tmp_path, tree))
    assert reading.headroom_bytes == GIB
    assert "memory.current" in reading.problems[0]


def test_usage_above_the_limit_leaves_nothing_rather_than_less(tmp_path: Path) -> None:
    tree = {
        "proc/meminfo": meminfo(8 << 20, 7 << 20),
        "proc/self/cgroup": "0::/a\n",
        "proc/self/mountinfo": cgroup2_mount(),
        **v2_group("a", limit=str(GIB), current=2 * GIB),
    }
    assert read_memory(plant(tmp_path, tree)).headroom_bytes == 0


@pytest.mark.parametrize("cgroup", ["", "\n\n", "::::", "4:memory", "0::relative/../..", "\x00"])
def test_a_cgroup_file_that_makes_no_sense_sets_no_limit(tmp_path: Path, cgroup: str) -> None:
    tree = {"proc/meminfo": meminfo(8 << 20, 7 << 20), "proc/self/cgroup": cgroup, "proc/self/mountinfo": "a b - c\n"}
    assert read_memory(plant(tmp_path, tree)).headroom_bytes == 7 * GIB


def test_hidden_meminfo_falls_back_to_the_kernels_own_numbers(tmp_path: Path) -> None:
    """ProcSubset=pid hides /proc/meminfo; the group's limits still count."""
    tree = {
        "proc/self/cgroup": "0::/a\n",
        "proc/self/mountinfo": cgroup2_mount(),
        **v2_group("a", limit=str(64 * MIB), current=16 * MIB),
    }
    reading = read_memory(plant(tmp_path, tree))
    assert reading.source == "sysinfo"
    assert reading.total_bytes == psutil.virtual_memory().total
    assert reading.headroom_bytes == 48 * MIB
    assert "/proc/meminfo" in reading.problems[0]


def test_a_kernel_without_mem_available_gives_free_memory(tmp_path: Path) -> None:
    reading = read_memory(plant(tmp_path, {"proc/meminfo": "MemTotal: 1024 kB\nMemFree: 512 kB\n"}))
    assert (reading.available_bytes, reading.source) == (512 * 1024, "/proc/meminfo")
    assert reading.problems


def test_this_machine_agrees_with_psutil() -> None:
    reading, other = read_memory(), psutil.virtual_memory()
    assert reading.total_bytes == other.total
    assert abs(reading.available_bytes - other.available) < 256 * MIB
    assert 0 < reading.headroom_bytes <= reading.available_bytes


def test_process_memory_of_this_process_grows_with_what_it_takes() -> None:
    before = process_rss()
    with mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(b"\xff" * (64 * MIB))
        after = process_rss()
    assert before is not None
    assert after is not None
    assert before.anon_bytes is not None
    assert after.anon_bytes is not None
    assert after.anon_bytes - before.anon_bytes >= 64 * MIB
    assert after.rss_bytes == after.anon_bytes + (after.file_bytes or 0) + (after.shmem_bytes or 0)


def test_process_pss_counts_less_than_rss_where_pages_are_shared() -> None:
    pss, rss = process_pss(), process_rss(os.getpid())
    if pss is None:
        pytest.skip("smaps_rollup is not readable here")
    assert rss is not None
    assert 0 < pss <= rss.rss_bytes + 16 * MIB


def test_a_process_that_is_gone_has_no_memory() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process_rss(child.pid) is None
    assert process_pss(child.pid) is None


@pytest.fixture
def v1_child_group() -> Iterator[Path]:
    """A real v1 memory group of 256 MiB below our own."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.split(":", 2)[2] for line in lines if line.split(":")[1] == "memory"), None)
    if own is None:
        pytest.skip("no v1 memory controller here")
    group = Path("/sys/fs/cgroup/memory") / own.lstrip("/") / f"edged-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(256 * MIB))
    except OSError as error:
        pytest.skip(f"no right to make a memory cgroup: {error}")
    yield group
    group.rmdir()


CACHE_STORY = """
import sys
from edged.hardware.memory import read_memory
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
first = read_memory().headroom_bytes
blob = open(sys.argv[2], "rb").read(64 << 20)
cached = read_memory()
del blob
print(first, cached.headroom_bytes, cached.limit_bytes, cached.binding == sys.argv[1])
"""


def test_inside_a_real_group_anonymous_memory_counts_and_page_cache_does_not(
    v1_child_group: Path, tmp_path: Path
) -> None:
    blob = tmp_path / "blob"
    with blob.open("wb") as file:
        file.write(os.urandom(64 * MIB))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    done = subprocess.run(
        [sys.executable, "-c", CACHE_STORY, str(v1_child_group), str(blob)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, cached, limit, binds = done.stdout.split()
    assert (int(limit), binds) == (256 * MIB, "True")
    # 64 MiB were read into the cache and 64 MiB into memory: only the second half is gone from the headroom.
    assert 56 * MIB <= int(first) - int(cached) <= 76 * MIB
