"""Frames in, a typed request out; what can be refused without a model is refused here, at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import zmq

from edged.errors import InvalidRequest, RequestError, Unsupported
from edged.protocol.codec import pack, unpack
from edged.protocol.limits import WireLimits
from edged.protocol.messages import (
    AnyRequest,
    Chat,
    Generate,
    Generation,
    ImagePart,
    Infer,
    VideoPart,
    parse_request,
    request_id,
)

SHOWN = 8  # attachments named in an error
REFERRING = {"chat": "messages", "infer": "image or inputs"}  # by op: the fields that name attachments


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that never became one: the id to answer under (None when there is no usable one), and why."""

    id: int | str | None
    error: RequestError


def read_request(
    frames: Sequence[zmq.Frame],
    limits: WireLimits,
    *,
    single_reply: bool,
    check_op: Callable[[str], None] = lambda op: None,
) -> tuple[AnyRequest, tuple[bytes, ...]] | Refused:
    """The request and its attachments, or why not. `check_op` raises RequestError for an op this client may not use."""
    answer_to: int | str | None = None
    try:
        if not frames or len(frames[0]) == 0:
            raise InvalidRequest("the message is empty; frame 0 must be a msgpack map")
        _check_sizes(frames, limits)
        message = unpack(frames[0].buffer, max_bytes=limits.max_header_bytes)
        answer_to = request_id(message)
        if isinstance(op := message.get("op"), str):
            check_op(op)
        request = parse_request(message)
        if isinstance(request, Generation):
            _check_generation(request, single_reply=single_reply)
        _check_attachments(request, len(frames) - 1)
        return request, cast("tuple[bytes, ...]", tuple(frames[1:]))  # only passed on, and so not copied
    except RequestError as error:
        return Refused(answer_to, error)


def input_digest(request: AnyRequest, attachments: Sequence[bytes]) -> bytes:
    """What quarantine knows a request by: its input and model, not its id or client. 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(pack(request.model_dump(mode="json", exclude={"id", "deadline_ms", "priority", "stream", "session"})))
    for frame in attachments:
        digest.update(hashlib.blake2b(frame, digest_size=16).digest())
    return digest.digest()


def _check_sizes(frames: Sequence[zmq.Frame], limits: WireLimits) -> None:
    if len(frames) > limits.max_frames + 1:
        raise InvalidRequest(f"{len(frames) - 1} attachments; at most {limits.max_frames} are allowed")
    total = 0
    for index, frame in enumerate(frames[1:]):
        total += len(frame)
        if len(frame) > limits.max_frame_bytes:
            raise InvalidRequest(f"attachment {index} has {len(frame)} bytes; at most {limits.max_frame_bytes}")
    if total > limits.max_message_bytes:
        raise InvalidRequest(f"the attachments have {total} bytes together; at most {limits.max_message_bytes}")


def _check_generation(request: Generation, *, single_reply: bool) -> None:
    if request.stream and single_reply:
        raise InvalidRequest("stream: a REQ socket takes one reply only; use a DEALER socket or stream=false")
    if request.num_beams > 1:
        raise Unsupported("num_beams: beam search is not offered; leave it out")
    if request.response_format not in (None, {"type": "text"}):
        raise Unsupported('response_format: only {"type": "text"} is offered by the loaded backend')
    if isinstance(request, Chat) and request.tools:
        raise Unsupported("tools: not offered by the loaded backend")
    if isinstance(request, Generate) and request.overflow != "error":
        raise InvalidRequest("overflow: only chat has turns that can be dropped")


def _check_attachments(request: AnyRequest, attachments: int) -> None:
    """Every frame that is named was sent, and every one that was sent is named."""
    named: set[int] = set()
    for where, wanted in _named_frames(request):
        for frame in wanted:
            if frame >= attachments:
                raise InvalidRequest(f"{where}: frame {frame} was not sent ({attachments} were)")
        named.update(wanted)
    stray = [str(frame) for frame in range(attachments) if frame not in named]
    if stray and request.op not in REFERRING:
        raise InvalidRequest(f"attachments: {request.op} takes none ({attachments} were sent)")
    if stray:
        which = ", ".join(stray[:SHOWN]) + (" …" if len(stray) > SHOWN else "")
        raise InvalidRequest(
            f"attachments: {REFERRING[request.op]} does not refer to frame {which}; send only what is used"
        )


def _named_frames(request: AnyRequest) -> Iterator[tuple[str, Sequence[int]]]:
    """The fields that refer to attachments, and to which."""
    if isinstance(request, Infer):
        yield ("image" if request.inputs is None else "inputs"), request.frames
    if not isinstance(request, Chat):
        return
    for number, message in enumerate(request.messages):
        for part in message.content if isinstance(message.content, list) else ():
            if isinstance(part, ImagePart):
                yield f"messages.{number}.content", [part.frame]
            elif isinstance(part, VideoPart):
                yield f"messages.{number}.content", part.frames
