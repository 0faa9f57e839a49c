"""What on a box speaks for a provider, and what is said when it cannot be used. Pure rules over what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edged.hardware.accelerators import Accelerator, AcceleratorKind
from edged.hardware.candidates import CANDIDATES, CPU_CANDIDATE, X86, Candidate
from edged.hardware.packages import Found, Package
from edged.hardware.trial_verdict import Verdict

NO_BUILD = "build it as docs/hardware.md says under Providers"


@dataclass(frozen=True, slots=True)
class Box:
    """What speaks for a provider: processor, accelerators, Vulkan drivers (names of their ICD files)."""

    machine: str
    cpu_model: str = ""
    accelerators: tuple[Accelerator, ...] = ()
    vulkan: tuple[str, ...] = ()
    jetson: bool = False


class Why(StrEnum):
    """The kind of a refusal."""

    NOT_NEEDED = "nothing here to run it on"
    NOT_INSTALLED = "not installed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a provider is not used. `mend` is the command or the step that would change it, "" if none is known."""

    why: Why
    reason: str
    mend: str = ""


def wanted_because(candidate: Candidate, box: Box) -> str:
    """What on this box speaks for `candidate`; "" when nothing does."""
    kind, _, device = candidate.key.partition("-")
    gpus = [found for found in box.accelerators if found.kind is AcceleratorKind.GPU]
    if candidate.key == CPU_CANDIDATE.key:
        return "always there; every other provider is judged by it"
    if candidate.key == "openvino-cpu":
        return f"x86-64 processor: {box.cpu_model}" if box.machine == X86 else ""
    if kind == "openvino":
        return _first(box, "Intel", AcceleratorKind(device))
    if candidate.key == "cuda":
        return _first(box, "NVIDIA", AcceleratorKind.GPU)
    if candidate.key == "tensorrt-rtx":
        return "" if box.jetson else _first(box, "NVIDIA", AcceleratorKind.GPU)
    if candidate.key == "qnn":
        return _first(box, "Qualcomm", AcceleratorKind.NPU) or _first(box, "Qualcomm", AcceleratorKind.DSP)
    if candidate.key == "webgpu" and gpus:
        return f"{gpus[0].vendor} {gpus[0].name}" + (f" with Vulkan ({', '.join(box.vulkan)})" if box.vulkan else "")
    return "" if candidate in CANDIDATES else "installed by the owner"


def _first(box: Box, vendor: str, kind: AcceleratorKind) -> str:
    fit = [found for found in box.accelerators if found.vendor == vendor and found.kind is kind]
    return f"{fit[0].vendor} {fit[0].name}" if fit else ""


def absent(candidate: Candidate, because: str, box: Box) -> Refusal:
    """The refusal of a provider that is not installed."""
    if not because:
        return Refusal(Why.NOT_NEEDED, f"not installed, and {Why.NOT_NEEDED}")
    if candidate.key == "cuda" and box.jetson:
        return Refusal(Why.NOT_INSTALLED, "PyPI has no CUDA build for Jetson", NO_BUILD)
    if box.machine not in candidate.wheels:
        return Refusal(Why.NOT_INSTALLED, f"PyPI has no build of it for {box.machine}", NO_BUILD)
    if candidate.key == "webgpu" and not box.vulkan:
        mend = f"sudo apt install mesa-vulkan-drivers && {candidate.mend}"
        return Refusal(Why.NOT_INSTALLED, "not installed, and no Vulkan driver either", mend)
    return Refusal(Why.NOT_INSTALLED, "not installed", candidate.mend)


def failed(candidate: Candidate, found: Found, verdict: Verdict, said: str, box: Box) -> Refusal:
    """The refusal of a provider whose proof ended so: what it said, and what stands behind it where that is known."""
    blocked = [device.problem for device in box.accelerators if device.problem and _drives(candidate, device)]
    if blocked:
        group = blocked[0].rpartition("user not in group ")[2] if "user not in group " in blocked[0] else ""
        mend = f'sudo usermod -aG {group} "$USER", then log in again' if group else ""
        return Refusal(Why.FAILED, f"{blocked[0]} ({said})", mend)
    reason = said if verdict is Verdict.REFUSED else f"{verdict}: {said}"
    if verdict is Verdict.REFUSED:
        if not wanted_because(candidate, box):
            return Refusal(Why.NOT_NEEDED, reason)
        if candidate.key == "openvino-cpu" and found.library:
            mend = "pip uninstall onnxruntime onnxruntime-ep-openvino && pip install onnxruntime-openvino"
            return Refusal(Why.FAILED, reason, mend)
        if candidate.key == "webgpu" and not box.vulkan:
            return Refusal(Why.FAILED, reason, "sudo apt install mesa-vulkan-drivers")
    return Refusal(Why.FAILED, reason, f"pip install -U {found.package}, and the device's driver")


def unserved(candidate: Candidate, packages: Sequence[Package]) -> Refusal | None:
    """onnxruntime can, but genai needs a package of its own for it."""
    if not candidate.genai or any(package.name == candidate.genai for package in packages):
        return None
    mend = f"pip uninstall onnxruntime-genai && pip install {candidate.genai}"
    return Refusal(Why.NOT_INSTALLED, f"onnxruntime has it, {candidate.genai} is missing", mend)


def _drives(candidate: Candidate, device: Accelerator) -> bool:
    """Whether `candidate` would open this device."""
    vendor = {
        "cuda": "NVIDIA",
        "tensorrt-rtx": "NVIDIA",
        "openvino-gpu": "Intel",
        "openvino-npu": "Intel",
        "qnn": "Qualcomm",
    }
    if candidate.key == "webgpu":
        return device.kind is AcceleratorKind.GPU
    kinds = {"openvino-npu": AcceleratorKind.NPU, "qnn": device.kind}
    return vendor.get(candidate.key) == device.vendor and kinds.get(candidate.key, AcceleratorKind.GPU) is device.kind
