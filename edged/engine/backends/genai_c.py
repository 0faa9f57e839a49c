"""onnxruntime-genai through its C interface: the same library, its calls without Python's lock.

The Python classes hold the lock for the whole of a native call, and reading a slice of a prompt is one call of seconds,
reading a picture one of seconds to minutes. Here other threads run meanwhile, so that one of them can end it:
`Generator.interrupt`. Only what the backends need; names follow the Python classes. Source: ort_genai_c.h of
onnxruntime-genai 0.18.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og  # its import finds onnxruntime and loads the library
from numpy.typing import NDArray

_lib = ctypes.CDLL(str(Path(og.__file__).parent / "libonnxruntime-genai.so"))
_ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "float16": 10}
_DTYPES = {number: np.dtype(name) for name, number in _ELEMENT_TYPES.items()}

_lib.OgaResultGetError.restype = ctypes.c_char_p
_lib.OgaResultGetError.argtypes = [ctypes.c_void_p]
_lib.OgaDestroyResult.argtypes = [ctypes.c_void_p]
_lib.OgaSequencesGetSequenceCount.restype = ctypes.c_size_t
_lib.OgaSequencesGetSequenceCount.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_lib.OgaSequencesGetSequenceData.restype = ctypes.POINTER(ctypes.c_int32)
_lib.OgaSequencesGetSequenceData.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_lib.OgaGenerator_TokenCount.restype = ctypes.c_size_t
_lib.OgaGenerator_TokenCount.argtypes = [ctypes.c_void_p]
_lib.OgaDestroyString.argtypes = [ctypes.c_void_p]


@cache
def _function(name: str) -> Any:
    function = getattr(_lib, name)
    function.restype = ctypes.c_void_p
    return function


def _call(name: str, *arguments: Any) -> None:
    """One function that may fail. Raises RuntimeError with the library's own words."""
    result = _function(name)(*arguments)
    if result:
        message = _lib.OgaResultGetError(result) or b""
        text = message.decode("utf-8", "replace")
        _lib.OgaDestroyResult(result)
        raise RuntimeError(text)


class _Handle:
    """A native object that is destroyed with this one."""

    _destroy = ""

    def __init__(self, made_by: str, *arguments: Any) -> None:
        self.pointer = ctypes.c_void_p()
        _call(made_by, *arguments, ctypes.byref(self.pointer))

    def __del__(self) -> None:
        pointer = getattr(self, "pointer", None)
        if pointer:
            _function(self._destroy)(pointer)


class Config(_Handle):
    """A model folder's configuration, to be changed before the model is made."""

    _destroy = "OgaDestroyConfig"

    def __init__(self, folder: str) -> None:
        super().__init__("OgaCreateConfig", folder.encode())

    def clear_providers(self) -> None:
        _call("OgaConfigClearProviders", self.pointer)

    def append_provider(self, name: str) -> None:
        _call("OgaConfigAppendProvider", self.pointer, name.encode())

    def set_provider_option(self, provider: str, key: str, value: str) -> None:
        _call("OgaConfigSetProviderOption", self.pointer, provider.encode(), key.encode(), value.encode())

    def overlay(self, json: str) -> None:
        _call("OgaConfigOverlay", self.pointer, json.encode())


class Model(_Handle):
    _destroy = "OgaDestroyModel"

    def __init__(self, config: Config) -> None:
        super().__init__("OgaCreateModelFromConfig", config.pointer)


class _Sequences(_Handle):
    _destroy = "OgaDestroySequences"


class Tokenizer(_Handle):
    _destroy = "OgaDestroyTokenizer"

    def __init__(self, model: Model) -> None:
        super().__init__("OgaCreateTokenizer", model.pointer)
        self._model = model

    def encode(self, text: str) -> list[int]:
        """Token ids; `text` must not hold NUL."""
        sequences = _Sequences("OgaCreateSequences")
        _call("OgaTokenizerEncode", self.pointer, text.encode(), sequences.pointer)
        count = _lib.OgaSequencesGetSequenceCount(sequences.pointer, 0)
        return list(_lib.OgaSequencesGetSequenceData(sequences.pointer, 0)[:count])

    def apply_chat_template(self, messages: str, *, add_generation_prompt: bool) -> str:
        """The conversation (JSON) in the model's own chat format."""
        out = ctypes.c_void_p()
        _call(
            "OgaTokenizerApplyChatTemplate", self.pointer, None, messages.encode(), None,
            ctypes.c_bool(add_generation_prompt), ctypes.byref(out),
        )  # fmt: skip
        text = ctypes.string_at(out).decode("utf-8") if out else ""
        _lib.OgaDestroyString(out)
        return text


class _Tensor(_Handle):
    """A tensor over an array's memory, which must outlive its use."""

    _destroy = "OgaDestroyTensor"

    def __init__(self, array: NDArray[Any]) -> None:
        assert array.flags.c_contiguous
        shape = (ctypes.c_int64 * array.ndim)(*array.shape)
        kind = _ELEMENT_TYPES[array.dtype.name]
        data = ctypes.c_void_p(array.ctypes.data)
        super().__init__("OgaCreateTensorFromBuffer", data, shape, ctypes.c_size_t(array.ndim), ctypes.c_int(kind))


class _NamedTensors(_Handle):
    _destroy = "OgaDestroyNamedTensors"


class _Params(_Handle):
    _destroy = "OgaDestroyGeneratorParams"


class _Output(_Handle):
    _destroy = "OgaDestroyTensor"


class Generator(_Handle):
    """One sequence and its KV memory. One call at a time, but for `interrupt`."""

    _destroy = "OgaDestroyGenerator"

    def __init__(self, model: Model, max_length: int) -> None:
        params = _Params("OgaCreateGeneratorParams", model.pointer)
        _call("OgaGeneratorParamsSetSearchNumber", params.pointer, b"max_length", ctypes.c_double(max_length))
        _call("OgaGeneratorParamsSetSearchBool", params.pointer, b"past_present_share_buffer", ctypes.c_bool(True))
        super().__init__("OgaCreateGenerator", model.pointer, params.pointer)
        self._model = model
        self._next, self._count = ctypes.POINTER(ctypes.c_int32)(), ctypes.c_size_t()

    def set_inputs(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Read a prompt with pictures: vision, embedding and decoder in one call. Only as the first call."""
        named = _NamedTensors("OgaCreateNamedTensors")
        tensors = {name: _Tensor(array) for name, array in arrays.items()}
        for name, tensor in tensors.items():
            _call("OgaNamedTensorsSet", named.pointer, name.encode(), tensor.pointer)
        _call("OgaGenerator_SetInputs", self.pointer, named.pointer)

    def append_tokens(self, tokens: Sequence[int] | NDArray[np.int32]) -> None:
        array = np.ascontiguousarray(tokens, dtype=np.int32)
        data = ctypes.c_void_p(array.ctypes.data)
        _call("OgaGenerator_AppendTokens", self.pointer, data, ctypes.c_size_t(len(array)))

    def generate_next_token(self) -> None:
        """Pick the likeliest token; first compute the one before it, if it was picked here."""
        _call("OgaGenerator_GenerateNextToken", self.pointer)

    def get_next_token(self) -> int:
        """The token that was picked last."""
        _call("OgaGenerator_GetNextTokens", self.pointer, ctypes.byref(self._next), ctypes.byref(self._count))
        return int(self._next[0])

    def get_logits(self) -> NDArray[np.float32]:
        """[1, 1, vocab] float32 of the newest token."""
        return self.output("OgaGenerator_GetLogits")[:, -1:].astype(np.float32, copy=False)

    def output(self, function: str, *names: bytes) -> NDArray[Any]:
        """A copy of what a function gives as a tensor."""
        tensor = _Output(function, self.pointer, *names)
        kind, rank, data = ctypes.c_int(), ctypes.c_size_t(), ctypes.c_void_p()
        _call("OgaTensorGetType", tensor.pointer, ctypes.byref(kind))
        _call("OgaTensorGetShapeRank", tensor.pointer, ctypes.byref(rank))
        shape = (ctypes.c_int64 * rank.value)()
        _call("OgaTensorGetShape", tensor.pointer, shape, rank)
        _call("OgaTensorGetData", tensor.pointer, ctypes.byref(data))
        dtype = _DTYPES[kind.value]
        content = ctypes.string_at(data, int(np.prod(list(shape))) * dtype.itemsize)
        return np.frombuffer(content, dtype=dtype).reshape(list(shape))

    def rewind_to(self, length: int) -> None:
        _call("OgaGenerator_RewindTo", self.pointer, ctypes.c_size_t(length))

    def token_count(self) -> int:
        """Tokens in the sequence."""
        return int(_lib.OgaGenerator_TokenCount(self.pointer))

    def interrupt(self) -> None:
        """From another thread: end the call that runs, which then raises; so does each one after it until `resume`."""
        _call("OgaGenerator_SetRuntimeOption", self.pointer, b"terminate_session", b"1")

    def resume(self) -> None:
        """After an `interrupt`. What the call had done is undone by `rewind_to`, for a model that can."""
        _call("OgaGenerator_SetRuntimeOption", self.pointer, b"terminate_session", b"0")
