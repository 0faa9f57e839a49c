"""The processor: model, cores, clusters, and the instructions that int4 kernels are written for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from edged.hardware.files import parse_cpu_list
from edged.hardware.tree import Tree

X86_FEATURES = {
    "AVX2": "avx2",
    "AVX-VNNI": "avx_vnni",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AMX-INT8": "amx_int8",
}
ARM_FEATURES = {"NEON": "asimd", "dotprod": "asimddp", "i8mm": "i8mm", "SVE": "sve"}
"""Name people use → flag in /proc/cpuinfo (Linux arch/x86/include/asm/cpufeatures.h, arch/arm64 elf_hwcaps.rst)."""

ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
    (0x51, 0x001): "Oryon",
}
"""(implementer, part) → name: MIDR_EL1 values in Linux arch/arm64/include/asm/cputype.h."""


@dataclass(frozen=True)
class Cluster:
    """Cores of one kind, by the kernel's numbers; `max_mhz` is None where the kernel does not scale frequencies."""

    name: str
    cpus: tuple[int, ...]
    max_mhz: float | None = None


@dataclass(frozen=True)
class Cpu:
    """`threads` are the kernel's CPUs that are online, `usable` those this process may run on."""

    model: str
    arch: str
    cores: int
    threads: int
    usable: int
    clusters: tuple[Cluster, ...]
    features: Mapping[str, bool]


def read_cpu(tree: Tree) -> Cpu:
    """Never fails: what is not told is "unknown", one core, no feature."""
    processors = _processors(tree.text("proc/cpuinfo"))
    clusters = _clusters(tree, processors)
    threads = max(1, len(processors))
    allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)", tree.text("proc/self/status"), re.MULTILINE)
    usable = len(set(parse_cpu_list(allowed[1])) & set(processors)) if allowed else threads
    siblings = {tree.text(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in processors}
    return Cpu(
        model=_model(processors, clusters),
        arch=tree.uname()[1] or "unknown",
        cores=threads if siblings <= {""} else len(siblings),
        threads=threads,
        usable=usable or threads,
        clusters=clusters,
        features=_features(processors),
    )


def _processors(cpuinfo: str) -> dict[int, dict[str, str]]:
    """CPU number → its fields. Boards' own lines (Serial, Revision) come after a blank line and have no number."""
    found = {}
    for block in re.split(r"\n\s*\n", cpuinfo):
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        if fields.get("processor", "").isdecimal():
            found[int(fields["processor"])] = fields
    return found


def _features(processors: dict[int, dict[str, str]]) -> dict[str, bool]:
    """What every CPU has: a thread may be moved to any of them."""
    flags = [set((cpu.get("flags") or cpu.get("Features") or "").split()) for cpu in processors.values()]
    common = set.intersection(*flags) if flags else set()
    if "neon" in common:  # 32-bit kernels' word for it
        common.add("asimd")
    names = ARM_FEATURES if any("CPU implementer" in cpu for cpu in processors.values()) else X86_FEATURES
    return {name: flag in common for name, flag in names.items()}


def _clusters(tree: Tree, processors: dict[int, dict[str, str]]) -> tuple[Cluster, ...]:
    groups: dict[str, list[int]] = {}
    for cpu, fields in processors.items():
        groups.setdefault(_kind_of_core(tree, cpu, fields), []).append(cpu)
    clusters = [Cluster(kind, tuple(cpus), _max_mhz(tree, cpus)) for kind, cpus in groups.items()]
    return tuple(sorted(clusters, key=lambda cluster: -(cluster.max_mhz or 0)))


def _kind_of_core(tree: Tree, cpu: int, fields: dict[str, str]) -> str:
    """Arm cores are told apart by part number, Intel's hybrids by their two performance counters."""
    if "CPU implementer" in fields:
        return _arm_core(fields)
    for kind, name in (("core", "performance"), ("atom", "efficiency"), ("lowpower", "low power")):
        if cpu in parse_cpu_list(tree.text(f"sys/devices/cpu_{kind}/cpus")):
            return name
    return "all alike"


def _arm_core(fields: dict[str, str]) -> str:
    try:
        implementer, part = int(fields["CPU implementer"], 16), int(fields["CPU part"], 16)
    except (KeyError, ValueError):
        return "unknown Arm core"
    return ARM_CORES.get((implementer, part), f"Arm core {implementer:#04x}/{part:#05x}")


def _max_mhz(tree: Tree, cpus: list[int]) -> float | None:
    khz = [tree.number(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/cpuinfo_max_freq") for cpu in cpus]
    return max((value / 1000 for value in khz if value), default=None)


def _model(processors: dict[int, dict[str, str]], clusters: tuple[Cluster, ...]) -> str:
    first = next(iter(processors.values()), {})
    if "CPU implementer" in first:
        return " + ".join(f"{len(cluster.cpus)} x {cluster.name}" for cluster in clusters)
    return " ".join(first.get("model name", "unknown").split())
