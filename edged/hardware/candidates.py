"""The table of execution providers that edged knows, as data: what they are called, where they come from."""

from __future__ import annotations

from dataclasses import dataclass

X86, ARM = "x86_64", "aarch64"
CPU_GRAPH, CUDA_GRAPH, QNN_GRAPH, OPENVINO_GRAPH, WEBGPU_GRAPH = "cpu", "cuda", "qnn", "openvino", "webgpu"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One provider, on one kind of device.

    `key` is its name towards people; `ort_name` and `genai_name` are what the libraries call it (`genai_name` "" is
    the CPU, which genai has without being told). `built_in` is the distribution whose onnxruntime has it built in and
    `library` the file by which that is seen ("" when it is part of onnxruntime's own); `plugin` is the distribution
    of the plug-in, `genai` one that genai needs besides. `wheels` are the machines for which PyPI has the way in that
    `mend` names. `graphs` are the variants of a model it can run, as genai_config.json names their providers;
    `dtype` is the float type its int4 kernels are made for.
    """

    key: str
    title: str
    ort_name: str
    genai_name: str
    options: tuple[tuple[str, str], ...] = ()
    built_in: str = ""
    library: str = ""
    plugin: str = ""
    genai: str = ""
    wheels: frozenset[str] = frozenset()
    mend: str = ""
    graphs: frozenset[str] = frozenset()
    dtype: str = "fp32"


CPU_CANDIDATE = Candidate(
    key="cpu",
    title="CPU",
    ort_name="CPUExecutionProvider",
    genai_name="",
    built_in="onnxruntime",
    wheels=frozenset({X86, ARM}),
    mend="pip install onnxruntime onnxruntime-genai",
    graphs=frozenset({CPU_GRAPH}),
)


def _openvino(device: str, title: str) -> Candidate:
    return Candidate(
        key=f"openvino-{device.lower()}",
        title=title,
        ort_name="OpenVINOExecutionProvider",
        genai_name="OpenVINO",
        options=(("device_type", device),),
        built_in="onnxruntime-openvino",
        library="libonnxruntime_providers_openvino.so",
        plugin="onnxruntime-ep-openvino",
        wheels=frozenset({X86}),
        mend="pip install onnxruntime-ep-openvino",
        graphs=frozenset({CPU_GRAPH, OPENVINO_GRAPH}),
    )


CANDIDATES: tuple[Candidate, ...] = (
    CPU_CANDIDATE,
    Candidate(
        key="cuda",
        title="CUDA",
        ort_name="CUDAExecutionProvider",
        genai_name="cuda",
        built_in="onnxruntime-gpu",
        library="libonnxruntime_providers_cuda.so",
        genai="onnxruntime-genai-cuda",
        wheels=frozenset({X86}),
        mend="pip uninstall onnxruntime onnxruntime-genai && pip install onnxruntime-gpu onnxruntime-genai-cuda",
        graphs=frozenset({CUDA_GRAPH}),
        dtype="fp16",
    ),
    Candidate(
        key="tensorrt-rtx",
        title="TensorRT-RTX",
        ort_name="NvTensorRTRTXExecutionProvider",
        genai_name="NvTensorRtRtx",
        library="libonnxruntime_providers_nv_tensorrt_rtx.so",
        plugin="onnxruntime-ep-nv-tensorrt-rtx",
        wheels=frozenset({X86, ARM}),
        mend="pip install onnxruntime-ep-nv-tensorrt-rtx",
        graphs=frozenset({CUDA_GRAPH, "nvtensorrtrtx"}),
        dtype="fp16",
    ),
    _openvino("CPU", "OpenVINO on CPU"),
    _openvino("GPU", "OpenVINO on Intel GPU"),
    _openvino("NPU", "OpenVINO on Intel NPU"),
    Candidate(
        key="webgpu",
        title="WebGPU",
        ort_name="WebGpuExecutionProvider",
        genai_name="WebGPU",
        built_in="onnxruntime-webgpu",
        plugin="onnxruntime-ep-webgpu",
        wheels=frozenset({X86, ARM}),
        mend="pip install onnxruntime-ep-webgpu",
        graphs=frozenset({CPU_GRAPH, WEBGPU_GRAPH}),
    ),
    Candidate(
        key="qnn",
        title="QNN (Qualcomm NPU)",
        ort_name="QNNExecutionProvider",
        genai_name="QNN",
        plugin="onnxruntime-qnn",
        wheels=frozenset({ARM}),
        mend="pip install onnxruntime-qnn",
        graphs=frozenset({QNN_GRAPH}),
    ),
)
"""CPU first: every other is compared with it."""
