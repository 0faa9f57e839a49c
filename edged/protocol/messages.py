"""The public request types of edged/1, as strict pydantic models: unknown fields are refused, numbers are bounded.

`parse_request` turns a decoded map into one of them or raises InvalidRequest naming the field. Replies are plain maps
(clients ignore what they do not know); `reply` builds them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from edged.errors import InvalidRequest, RequestError

VERSION = 1
MAX_ID_BYTES = 64
MAX_MESSAGES = 4096
MAX_PARTS = 256
MAX_STOPS = 8
MAX_STOP_BYTES = 256
MAX_TOKENS = 2**31 - 1
MAX_DEADLINE_MS = 24 * 3600 * 1000
MAX_SEED = 2**63 - 1
MAX_NAME_BYTES = 128
MAX_REASON_CHARS = 200


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("text must not contain NUL characters; remove them")
    return text


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("one line of printable characters")
    return text


def _short_id(value: int | str) -> int | str:
    if isinstance(value, str) and len(value.encode()) > MAX_ID_BYTES:
        raise ValueError(f"at most {MAX_ID_BYTES} bytes")
    return value


Text = Annotated[str, AfterValidator(_no_nul)]
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_BYTES), AfterValidator(_no_nul)]
Id = Annotated[
    Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | Annotated[str, AfterValidator(_no_nul)],
    AfterValidator(_short_id),
]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_BYTES), AfterValidator(_no_nul)]
Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_CHARS), AfterValidator(_one_line)]
Frame = Annotated[int, Field(ge=0, le=255)]
Detail = Literal["low", "high", "auto"]
TensorDtype = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"
]


class Strict(BaseModel):
    """Base of all public types: nothing unknown, nothing converted, nothing changed later."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class TextPart(Strict):
    type: Literal["text"]
    text: Text


class ImagePart(Strict):
    type: Literal["image"]
    frame: Frame
    detail: Detail = "auto"


class VideoPart(Strict):
    type: Literal["video"]
    frames: Annotated[list[Frame], Field(min_length=1, max_length=64)]
    timestamps_ms: Annotated[list[Annotated[int, Field(ge=0, le=2**53)]], Field(max_length=64)] | None = None
    detail: Detail = "auto"


Part = Annotated[TextPart | ImagePart | VideoPart, Field(discriminator="type")]


class Message(Strict):
    """One turn. `content` is text or a list of parts."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text | Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS)]


class Request(Strict):
    """What every request carries."""

    v: Annotated[int, Field(ge=VERSION, le=VERSION)]
    id: Id
    op: str


class Generation(Request):
    """Controls that `chat` and `generate` share. Probabilities are in 0..1, penalties have the usual meaning."""

    model: Name | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=5)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[float, Field(ge=0.01, le=5)] = 1.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    num_beams: Annotated[int, Field(ge=1, le=64)] = 1
    logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stream: bool = False
    session: Name | None = None
    overflow: Literal["error", "truncate_oldest"] = "error"
    deadline_ms: Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    response_format: dict[str, Any] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple, whatever form they came in."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)


class Chat(Generation):
    op: Literal["chat"]
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None

    @model_validator(mode="after")
    def _ends_with_question(self) -> Chat:
        if self.messages[-1].role not in ("user", "tool"):
            raise ValueError("messages: the last one must be from the user or a tool")
        return self


class Generate(Generation):
    op: Literal["generate"]
    prompt: Annotated[str, Field(min_length=1), AfterValidator(_no_nul)]


class Tokenize(Request):
    op: Literal["tokenize"]
    text: Text
    model: Name | None = None


class TensorInput(Strict):
    """A tensor in a frame: its elements in row-major order, little-endian."""

    dtype: TensorDtype
    shape: Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(max_length=8)]
    frame: Frame


class Infer(Request):
    """Run a plain ONNX model on one image or on named tensors."""

    op: Literal["infer"]
    model: Name | None = None
    image: Frame | None = None
    inputs: Annotated[dict[Name, TensorInput], Field(min_length=1, max_length=64)] | None = None
    top_k: Annotated[int, Field(ge=1, le=10_000)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] | None = None

    @model_validator(mode="after")
    def _has_one_input(self) -> Infer:
        if (self.image is None) == (self.inputs is None):
            raise ValueError("give either image (the index of its frame) or inputs (named tensors)")
        return self

    @property
    def frames(self) -> list[int]:
        """The attachments it names."""
        return [self.image] if self.image is not None else [each.frame for each in (self.inputs or {}).values()]


class Embed(Request):
    """Vectors of texts."""

    op: Literal["embed"]
    model: Name | None = None
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=256)]
    normalize: bool | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=MAX_DEADLINE_MS)] | None = None


class Cancel(Request):
    op: Literal["cancel"]
    target: Id


class SessionClose(Request):
    op: Literal["session.close"]
    session: Name
    model: Name | None = None


class Hello(Request):
    op: Literal["hello"]


class Ping(Request):
    op: Literal["ping"]


class Status(Request):
    op: Literal["status"]


class Models(Request):
    op: Literal["models"]


class Load(Request):
    """Bring a model into memory. `keep_s`: unload it after so many idle seconds, 0 never; None as the settings say."""

    op: Literal["load"]
    model: Name
    keep_s: Annotated[float, Field(ge=0, le=86_400)] | None = None


class Unload(Request):
    op: Literal["unload"]
    model: Name


class UpdateRequest(Request):
    """What every `update.*` op carries. `model`: whose updates; without it the default's."""

    model: Name | None = None


class UpdateStatus(UpdateRequest):
    op: Literal["update.status"]


class UpdateCheck(UpdateRequest):
    op: Literal["update.check"]


class UpdateApply(UpdateRequest):
    """`again`: also a version that failed on this device before."""

    op: Literal["update.apply"]
    again: bool = False


class UpdateRollback(UpdateRequest):
    op: Literal["update.rollback"]
    reason: Reason = "by hand"


class UpdateHold(UpdateRequest):
    """`on` false takes the hold back."""

    op: Literal["update.hold"]
    on: bool = True
    reason: Reason = "by hand"


AnyUpdate = UpdateStatus | UpdateCheck | UpdateApply | UpdateRollback | UpdateHold
AnyRequest = (
    Chat
    | Generate
    | Tokenize
    | Infer
    | Embed
    | Cancel
    | SessionClose
    | Hello
    | Ping
    | Status
    | Models
    | Load
    | Unload
    | AnyUpdate
)

_TYPES: dict[str, TypeAdapter[Any]] = {
    "chat": TypeAdapter(Chat),
    "generate": TypeAdapter(Generate),
    "tokenize": TypeAdapter(Tokenize),
    "infer": TypeAdapter(Infer),
    "embed": TypeAdapter(Embed),
    "cancel": TypeAdapter(Cancel),
    "session.close": TypeAdapter(SessionClose),
    "hello": TypeAdapter(Hello),
    "ping": TypeAdapter(Ping),
    "status": TypeAdapter(Status),
    "models": TypeAdapter(Models),
    "load": TypeAdapter(Load),
    "unload": TypeAdapter(Unload),
    "update.status": TypeAdapter(UpdateStatus),
    "update.check": TypeAdapter(UpdateCheck),
    "update.apply": TypeAdapter(UpdateApply),
    "update.rollback": TypeAdapter(UpdateRollback),
    "update.hold": TypeAdapter(UpdateHold),
}
OPS = tuple(_TYPES)


def parse_request(message: dict[str, Any]) -> AnyRequest:
    """The typed request in a decoded map. Raises InvalidRequest naming the field and what it may be."""
    op = message.get("op")
    if not isinstance(op, str):
        raise InvalidRequest("op: required, one of " + ", ".join(OPS))
    adapter = _TYPES.get(op)
    if adapter is None:
        raise InvalidRequest(f"op: {op[:40]!r} is not known; use one of " + ", ".join(OPS))
    try:
        request: AnyRequest = adapter.validate_python(message)
    except ValidationError as error:
        raise InvalidRequest(_explain(error, message)) from None
    return request


def _explain(error: ValidationError, message: dict[str, Any]) -> str:
    """The error that got furthest into the message (of the types a field may have, the one that was meant)."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    placed = [(_where(each["loc"], message, missing=each["type"] == "missing"), each["msg"]) for each in found]
    where, what = max(placed, key=lambda pair: len(pair[0]))
    what = what.removeprefix("Value error, ")
    return f"{'.'.join(where)}: {what}" if where else what


def _where(loc: tuple[int | str, ...], message: dict[str, Any], *, missing: bool) -> list[str]:
    """The steps of `loc` that the message itself has; pydantic mixes in the names of the types that it tried."""
    steps: list[str] = []
    value: Any = message
    for step in loc:
        is_there = step in value if isinstance(value, dict) else isinstance(value, list) and isinstance(step, int)
        if is_there:
            value = value[step]
            steps.append(str(step)[:40])
    if missing:
        steps.append(str(loc[-1]))
    return steps


def request_id(message: dict[str, Any]) -> int | str | None:
    """The id to answer under, if the map has a usable one."""
    value = message.get("id")
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    return value if isinstance(value, int) or len(value.encode("utf-8", "replace")) <= MAX_ID_BYTES else None


def reply(request: int | str | None, event: str, **fields: Any) -> dict[str, Any]:
    """A reply map; fields that are None are left out."""
    made: dict[str, Any] = {"v": VERSION, "id": request, "ev": event}
    made.update((name, value) for name, value in fields.items() if value is not None)
    return made


def error_fields(error: RequestError) -> dict[str, Any]:
    """The fields of an `error` event."""
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "retry_after_ms": error.retry_after_ms,
        "max_tokens_fit": error.max_tokens_fit,
    }
