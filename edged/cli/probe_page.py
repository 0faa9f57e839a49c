"""The page that `edged probe` prints: the box line by line, then its execution providers."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edged.hardware.duty import judged_zones, limits_for, zone_limit_c
from edged.hardware.findings import Findings
from edged.hardware.probe import HardwareReport

Fact = tuple[str, str]


def print_page(console: Console, found: Findings) -> None:
    """Prints everything worth reading; what a box has not is left out, save where its absence matters."""
    console.print(_box_table(found.report))
    console.print()
    console.print(_providers_table(found))
    idle = [report.candidate.key for report in found.providers if not (report.found or report.wanted_because)]
    if idle:
        console.print(f"Not installed, and nothing here to run them on: {', '.join(idle)}.", style="dim")
    how = "remembered; --refresh finds out again" if found.remembered else "found out just now"
    console.print(f"Fingerprint {found.fingerprint}. Providers and bandwidth: {how}.", style="dim")


def _box_table(report: HardwareReport) -> Table:
    table = Table(title="This box", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (
        ("Board", _board(report)),
        *_cpu(report),
        *_memory(report),
        *_accelerators(report),
        *_power(report),
        *_heat(report),
        *_disk(report),
    ):
        table.add_row(name, escape(value))
    return table


def _board(report: HardwareReport) -> str:
    board = report.board
    return ", ".join(
        part
        for part in (
            board.model,
            board.soc,
            board.l4t and f"L4T {board.l4t}",
            board.jetpack and f"JetPack {board.jetpack}",
            board.hypervisor and f"hypervisor {board.hypervisor}",
            report.kernel and f"Linux {report.kernel}",
        )
        if part
    )


def _cpu(report: HardwareReport) -> list[Fact]:
    cpu = report.cpu
    facts = [("CPU", f"{cpu.model}; {_count(cpu.cores, 'core')}, {_count(cpu.threads, 'thread')} ({cpu.arch})")]
    if cpu.usable < cpu.threads:
        facts.append(("", f"this process may run on {cpu.usable} of them"))
    if len(cpu.clusters) > 1:
        facts += [
            ("", f"{len(part.cpus)} x {part.name}" + (f", up to {part.max_mhz:.0f} MHz" if part.max_mhz else ""))
            for part in cpu.clusters
        ]
    facts.append(("For int4", ", ".join(name if has else f"no {name}" for name, has in cpu.features.items())))
    return facts


def _memory(report: HardwareReport) -> list[Fact]:
    memory = report.memory
    unified = ", shared with the GPU" if memory.unified else ""
    facts = [("Memory", f"{_gib(memory.total_bytes)}, {_gib(memory.available_bytes)} available{unified}")]
    if memory.limit_bytes is not None:
        facts.append(("", f"limited to {_gib(memory.limit_bytes)} by a control group"))
    if memory.swap_bytes:
        zram = f", {_gib(memory.zram_bytes)} of it zram" if memory.zram_bytes else ""
        facts.append(("", f"{_gib(memory.swap_bytes)} swap{zram}: never counted as memory"))
    if memory.bandwidth:
        facts.append(("Bandwidth", f"{memory.bandwidth / 1e9:.1f} GB/s, read by all cores together for a second"))
    return facts


def _accelerators(report: HardwareReport) -> list[Fact]:
    facts: list[Fact] = []
    for device in report.accelerators:
        own = f", {_gib(device.memory_bytes)} of its own" if device.memory_bytes else ""
        driver = " ".join(filter(None, [device.driver, device.driver_version]))
        facts.append((device.kind.upper(), f"{device.vendor} {device.name}{own} ({driver})"))
        if device.problem:
            facts.append(("", device.problem))
    if report.vulkan:
        facts.append(("Vulkan", ", ".join(name.removesuffix(".json") for name in report.vulkan)))
    return facts or [("GPU, NPU", "none found")]


def _power(report: HardwareReport) -> list[Fact]:
    power = report.power
    parts = [f"{power.mode} (of {', '.join(power.modes)})"] if power.mode else []
    parts += [f"governor {', '.join(power.governors)}"] if power.governors else []
    parts += ["on battery"] if power.on_battery else []
    return [("Power", "; ".join(parts))] if parts else []


def _heat(report: HardwareReport) -> list[Fact]:
    """The three warmest sensors that are judged, with the temperature that edged keeps each below."""
    limits = limits_for(report.board.kind)
    warm = sorted(judged_zones(report.thermal), key=lambda zone: -zone.celsius)[:3]
    shown = [f"{zone.name} {zone.celsius:.0f} °C (kept below {zone_limit_c(zone, limits):.0f})" for zone in warm]
    facts = [("Heat", "; ".join(shown) or "no sensor tells")]
    throttling = report.thermal.throttling
    if throttling.now:
        facts.append(("Slowed", f"now: {', '.join(throttling.now)}"))
    if throttling.since_boot:
        facts.append(("Slowed", f"since boot: {', '.join(throttling.since_boot)}"))
    return facts


def _disk(report: HardwareReport) -> list[Fact]:
    disk = report.disk
    return [("Disk", f"{_gib(disk.free_bytes)} free of {_gib(disk.total_bytes)} at {disk.path}")] if disk else []


def _providers_table(found: Findings) -> Table:
    table = Table(title="Execution providers", title_justify="left", box=None, pad_edge=False)
    for column in ("Provider", "Wanted because", "Found", "Verdict"):
        table.add_column(column, overflow="fold")
    for report in found.providers:
        if not (report.found or report.wanted_because):
            continue
        colour = "green" if report.usable else "yellow"
        mend = f"\n{escape(report.refusal.mend)}" if report.refusal and report.refusal.mend else ""
        verdict = f"[{colour}]{escape(report.summary)}[/{colour}]{mend}"
        because = escape(report.wanted_because) or "-"
        table.add_row(report.candidate.key, because, escape(report.found) or "-", verdict)
    return table


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
