"""GPUs, NPUs and DSPs that the kernel shows, with the node a provider would open.

Whether one really runs a model is not decided here: that takes running it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class AcceleratorKind(StrEnum):
    """What sort of processor it is."""

    GPU = "gpu"
    NPU = "npu"
    DSP = "dsp"


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One device. `memory_bytes` is memory of its own; `unified` means it shares the machine's and adds none.

    `problem` says why this process could not use it even where a provider supports it.
    """

    kind: AcceleratorKind
    vendor: str
    name: str
    driver: str
    driver_version: str | None = None
    node: str | None = None
    memory_bytes: int | None = None
    unified: bool = True
    problem: str | None = None
