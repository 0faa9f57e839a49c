"""onnxruntime's InferenceSession for plain ONNX models, on the execution provider that was chosen for this box."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from numpy.typing import NDArray

from edged.errors import DeadlineExceeded, ModelError
from edged.hardware.trial_messages import CPU, ProviderSpec
from edged.hardware.tune import Setting

Array = NDArray[Any]
NO_CPU = ("session.disable_cpu_ep_fallback", "1")
WARNING_AND_WORSE = 3


class OrtBackend:
    """One graph on one provider. Not thread-safe; owned by the engine's main thread."""

    def __init__(self, folder: Path, file: str, provider: ProviderSpec, setting: Setting, *, strict: bool) -> None:
        """Load it. `strict`: no operator may fall to the CPU. Raises ModelError when onnxruntime refuses it."""
        if setting.cores:
            os.sched_setaffinity(0, setting.cores)  # before any thread pool exists: they inherit it
        options = ort.SessionOptions()
        options.log_severity_level = WARNING_AND_WORSE
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # calls are short and far between
        options.intra_op_num_threads = setting.threads
        if strict and provider.ort_name != CPU.ort_name:
            options.add_session_config_entry(*NO_CPU)
        try:
            self._session = _open(str(folder / file), provider, options)
        except Exception as error:  # the library raises kinds of its own
            raise ModelError(folder, file, f"onnxruntime refused it: {_first_line(error)}") from error
        if provider.ort_name not in self._session.get_providers():
            raise ModelError(folder, file, f"{provider.ort_name} could not be created for it; see `edged providers`")
        self.output_names = tuple(output.name for output in self._session.get_outputs())

    def run(self, feeds: Mapping[str, Array], limit_s: float | None = None) -> dict[str, Array]:
        """The graph's outputs by name; ended when it takes longer than `limit_s`, with DeadlineExceeded."""
        if limit_s is None:
            return dict(zip(self.output_names, self._session.run(None, dict(feeds)), strict=True))
        options = ort.RunOptions()
        late = threading.Event()

        def end() -> None:
            late.set()
            options.terminate = True  # looked at between operators

        timer = threading.Timer(max(0.0, limit_s), end)
        timer.start()
        try:
            return dict(zip(self.output_names, self._session.run(None, dict(feeds), options), strict=True))
        except Exception as error:
            if late.is_set():
                raise DeadlineExceeded("the deadline passed while the model ran") from error
            raise
        finally:
            timer.cancel()


def _open(path: str, provider: ProviderSpec, options: Any) -> Any:
    if not provider.library:
        return ort.InferenceSession(path, options, providers=[(provider.ort_name, dict(provider.options))])
    ort.register_execution_provider_library(provider.key, provider.library)
    wanted = dict(provider.options).get("device_type", "")
    devices = [
        device
        for device in ort.get_ep_devices()
        if device.ep_name == provider.ort_name and wanted in device.ep_metadata.get("ov_device", wanted)
    ]
    options.add_provider_for_devices(devices[:1], dict(provider.options))
    return ort.InferenceSession(path, options)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
