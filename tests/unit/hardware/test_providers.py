"""Which provider is wanted, found, proved or refused: real package trees, real children, no device at hand."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edged.hardware.accelerators import Accelerator, AcceleratorKind
from edged.hardware.candidates import CANDIDATES, Candidate
from edged.hardware.packages import Package, clashing, find, installed, unknown_plugins
from edged.hardware.provider_cache import recall_reports, remember_reports
from edged.hardware.provider_rules import NO_BUILD, Box, Why, absent, wanted_because
from edged.hardware.providers import ProviderReport, examine, warnings
from edged.hardware.trial_runner import Limits
from edged.hardware.trial_verdict import Verdict

ROOT = Path(__file__).resolve().parents[3]
LIMITS = Limits(deadline_s=60, memory_bytes=4 << 30, keep_free_bytes=1 << 20)
CAPI = "onnxruntime/capi/libonnxruntime.so.1.31.1"
NO_ACCESS = "no access to /dev/dri/renderD128: user not in group render"


def candidate(key: str) -> Candidate:
    return next(found for found in CANDIDATES if found.key == key)


def device(kind: str, vendor: str, name: str, problem: str | None = None) -> Accelerator:
    return Accelerator(kind=AcceleratorKind(kind), vendor=vendor, name=name, driver="x", problem=problem)


def install(site: Path, name: str, version: str, *files: str, content: bytes = b"") -> None:
    """A distribution as pip leaves it: files, METADATA and RECORD."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        path = site / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def packages(site: Path) -> tuple[Package, ...]:
    return installed([str(site)])


def found_keys(site: Path) -> dict[str, str]:
    known = packages(site)
    return {one.key: f"{where.package}:{where.library or ''}" for one in CANDIDATES if (where := find(one, known))}


def test_the_plain_wheel_has_the_cpu_and_nothing_else(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.31.1", CAPI, "onnxruntime/capi/libonnxruntime_providers_shared.so")
    assert found_keys(tmp_path) == {"cpu": "onnxruntime:"}


def test_the_gpu_build_has_cuda_built_in(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1", CAPI, "onnxruntime/capi/libonnxruntime_providers_cuda.so")
    assert found_keys(tmp_path) == {"cpu": "onnxruntime-gpu:", "cuda": "onnxruntime-gpu:"}


def test_the_all_in_one_openvino_build_serves_three_kinds_of_device(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-openvino", "1.24.1", CAPI, "onnxruntime/capi/libonnxruntime_providers_openvino.so")
    assert set(found_keys(tmp_path)) == {"cpu", "openvino-cpu", "openvino-gpu", "openvino-npu"}


def test_plug_ins_are_found_by_their_library_also_under_a_flavour_of_the_name(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.31.1", CAPI)
    install(tmp_path, "onnxruntime-ep-nv-tensorrt-rtx", "0.5.0")  # the meta package is empty
    rtx = "onnxruntime_ep_nv_tensorrt_rtx/libonnxruntime_providers_nv_tensorrt_rtx.so"
    install(tmp_path, "onnxruntime-ep-nv-tensorrt-rtx-cu13", "0.5.0", rtx)
    web = "onnxruntime_ep_webgpu/libonnxruntime_providers_webgpu.so"
    install(tmp_path, "onnxruntime_ep_webgpu", "0.4.0", web)
    assert found_keys(tmp_path) == {
        "cpu": "onnxruntime:",
        "tensorrt-rtx": f"onnxruntime-ep-nv-tensorrt-rtx-cu13:{tmp_path / rtx}",
        "webgpu": f"onnxruntime-ep-webgpu:{tmp_path / web}",
    }


def test_a_plug_in_the_table_does_not_know_becomes_a_candidate_by_the_name_in_its_text(tmp_path: Path) -> None:
    library = "onnxruntime_ep_new/libonnxruntime_providers_new.so"
    install(tmp_path, "onnxruntime-ep-new", "1.0", library)
    assert unknown_plugins(packages(tmp_path)) == ()
    (tmp_path / "onnxruntime_ep_new/__init__.py").write_text('def get_ep_name():\n    return "NewExecutionProvider"\n')
    ((known, where),) = unknown_plugins(packages(tmp_path))
    assert (known.key, known.ort_name, where.library) == ("new", "NewExecutionProvider", tmp_path / library)


def test_two_builds_of_onnxruntime_are_told(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime", "1.31.1", CAPI)
    assert warnings(packages(tmp_path)) == ()
    install(tmp_path, "onnxruntime-openvino", "1.24.1", CAPI)
    assert clashing(packages(tmp_path)) == ("onnxruntime", "onnxruntime-openvino")
    assert "on top of each other" in warnings(packages(tmp_path))[0]


@pytest.mark.parametrize(
    ("key", "box", "expected"),
    [
        ("cpu", Box("riscv64"), "always there"),
        ("cuda", Box("x86_64", accelerators=(device("gpu", "NVIDIA", "RTX 4060"),)), "NVIDIA RTX 4060"),
        ("cuda", Box("x86_64", accelerators=(device("gpu", "AMD", "780M"),)), ""),
        ("cuda", Box("aarch64", accelerators=(device("gpu", "NVIDIA", "tegra234"),), jetson=True), "NVIDIA tegra234"),
        ("tensorrt-rtx", Box("aarch64", accelerators=(device("gpu", "NVIDIA", "tegra234"),), jetson=True), ""),
        ("openvino-cpu", Box("x86_64", "Intel N100"), "Intel N100"),
        ("openvino-cpu", Box("aarch64"), ""),
        ("openvino-gpu", Box("x86_64", accelerators=(device("gpu", "Intel", "Arc"),)), "Intel Arc"),
        ("openvino-npu", Box("x86_64", accelerators=(device("gpu", "Intel", "Arc"),)), ""),
        ("openvino-npu", Box("x86_64", accelerators=(device("npu", "Intel", "AI Boost"),)), "Intel AI Boost"),
        ("qnn", Box("aarch64", accelerators=(device("dsp", "Qualcomm", "Hexagon"),)), "Qualcomm Hexagon"),
        ("webgpu", Box("x86_64"), ""),
        (
            "webgpu",
            Box("x86_64", accelerators=(device("gpu", "AMD", "780M"),), vulkan=("radeon_icd.json",)),
            "radeon_icd",
        ),
    ],
)
def test_what_speaks_for_a_provider(key: str, box: Box, expected: str) -> None:
    because = wanted_because(candidate(key), box)
    assert expected in because
    assert bool(because) is bool(expected)


@pytest.mark.parametrize(
    ("key", "box", "mend"),
    [
        ("openvino-gpu", Box("x86_64"), "pip install onnxruntime-ep-openvino"),
        ("openvino-gpu", Box("aarch64"), NO_BUILD),
        ("cuda", Box("aarch64", jetson=True), NO_BUILD),
        ("tensorrt-rtx", Box("aarch64"), "pip install onnxruntime-ep-nv-tensorrt-rtx"),
        ("webgpu", Box("x86_64", vulkan=("a.json",)), "pip install onnxruntime-ep-webgpu"),
        ("webgpu", Box("x86_64"), "sudo apt install mesa-vulkan-drivers && pip install onnxruntime-ep-webgpu"),
    ],
)
def test_a_provider_that_is_wanted_and_not_installed_says_what_to_do(key: str, box: Box, mend: str) -> None:
    refusal = absent(candidate(key), "a device", box)
    assert (refusal.why, refusal.mend) == (Why.NOT_INSTALLED, mend)


def test_a_provider_nothing_speaks_for_asks_for_nothing() -> None:
    refusal = absent(candidate("cuda"), "", Box("x86_64"))
    assert (refusal.why, refusal.mend) == (Why.NOT_NEEDED, "")


@pytest.fixture(scope="module")
def here() -> tuple[ProviderReport, ...]:
    """This machine and these packages, really tried."""
    return examine(Box(platform.machine(), "a processor"), installed(), limits=LIMITS)


def test_the_cpu_is_proved_here_and_every_candidate_has_a_report(here: tuple[ProviderReport, ...]) -> None:
    assert [report.candidate for report in here][: len(CANDIDATES)] == list(CANDIDATES)
    cpu = here[0]
    assert cpu.usable
    assert cpu.proof is not None
    assert (cpu.proof.verdict, cpu.proof.ran_here, cpu.proof.fell_to_cpu) == (Verdict.OK, 3, ())
    assert all(report.usable or report.refusal.reason for report in here if report.refusal)


def test_reports_survive_json_and_are_remembered_per_fingerprint(
    here: tuple[ProviderReport, ...], tmp_path: Path
) -> None:
    assert tuple(ProviderReport.from_dict(json.loads(json.dumps(report.to_dict()))) for report in here) == here
    assert recall_reports(tmp_path / "state", "one") is None
    remember_reports(tmp_path / "state", "one", here)
    assert recall_reports(tmp_path / "state", "one") == here
    assert recall_reports(tmp_path / "state", "another") is None
    (tmp_path / "state/providers.json").write_text('{"format": 1, "fingerprint": "one", "reports": [{}]}')
    assert recall_reports(tmp_path / "state", "one") is None


def test_asking_imports_nothing_native() -> None:
    code = (
        "import sys; from edged.hardware.packages import installed; from edged.hardware.providers import *\n"
        "examine(Box('x86_64'), installed())\n"
        "assert not {name for name in sys.modules if name.startswith('onnxruntime')}, sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=120)


def report_of(site: Path, key: str, box: Box) -> ProviderReport:
    """The packages of `site` on top of the real ones."""
    return next(one for one in examine(box, (*packages(site), *installed()), limits=LIMITS) if one.candidate.key == key)


def test_a_library_that_is_no_library_is_refused_and_a_missing_group_named(tmp_path: Path) -> None:
    install(
        tmp_path, "onnxruntime-ep-openvino", "9", "ep/libonnxruntime_providers_openvino_plugin.so", content=b"no ELF"
    )
    plain = report_of(tmp_path, "openvino-gpu", Box("x86_64", accelerators=(device("gpu", "Intel", "Arc"),)))
    assert plain.refusal is not None
    assert (plain.refusal.why, plain.usable) == (Why.FAILED, False)
    assert "libonnxruntime_providers_openvino_plugin.so" in plain.refusal.reason
    barred = report_of(
        tmp_path, "openvino-gpu", Box("x86_64", accelerators=(device("gpu", "Intel", "Arc", NO_ACCESS),))
    )
    assert barred.refusal is not None
    assert "user not in group render" in barred.refusal.reason
    assert barred.refusal.mend == 'sudo usermod -aG render "$USER", then log in again'


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler to make a library that crashes")
def test_a_library_that_crashes_while_it_is_loaded_is_a_report_not_an_end(tmp_path: Path) -> None:
    library = "onnxruntime_ep_webgpu/libonnxruntime_providers_webgpu.so"
    install(tmp_path, "onnxruntime-ep-webgpu", "9", library)
    source = tmp_path / "crash.c"
    source.write_text("__attribute__((constructor)) static void crash(void) { *(volatile int *)0 = 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(tmp_path / library), str(source)], check=True, timeout=60)
    report = report_of(tmp_path, "webgpu", Box("x86_64", vulkan=("a.json",)))
    assert report.proof is not None
    assert report.proof.verdict is Verdict.CRASHED
    assert report.refusal is not None
    assert report.refusal.reason == "crashed: SIGSEGV while in load"
    assert "pip install -U onnxruntime-ep-webgpu" in report.refusal.mend


def test_cuda_needs_the_genai_package_that_goes_with_it(tmp_path: Path) -> None:
    """On a box with CUDA's onnxruntime and plain genai: judged by the packages alone, after a proof that passed."""
    from edged.hardware.provider_rules import unserved

    install(tmp_path, "onnxruntime-genai", "0.18.0")
    refusal = unserved(candidate("cuda"), packages(tmp_path))
    assert refusal is not None
    assert "onnxruntime-genai-cuda" in refusal.mend
    install(tmp_path, "onnxruntime-genai-cuda", "0.18.0")
    assert unserved(candidate("cuda"), packages(tmp_path)) is None
