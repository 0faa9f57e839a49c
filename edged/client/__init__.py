"""Clients for programs on the box: `Client` (blocking) and `AsyncClient` (asyncio), and what they return and raise.

    from edged.client import Client

    with Client() as client:
        for piece in client.chat("set the lab fan to 40 percent", stream=True):
            print(piece, end="", flush=True)

An `error` answer of the daemon is raised as the class of its code (`edged.errors`: Busy, TooLarge, ...), with
`retryable` and `retry_after_ms`. What happens before there is an answer is a `ClientError`. No native library but
libzmq is imported here, and nothing of the daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edged.client.errors import (
    BadReply,
    ClientError,
    ConnectionLost,
    DaemonNotFound,
    NoReply,
    UnknownError,
    UsageError,
)
from edged.client.plain import Box, Embedding, Inference, Label, Tensor
from edged.client.replies import (
    Accepted,
    Answer,
    Delta,
    Event,
    Hello,
    Model,
    Progress,
    Queued,
    Status,
    Timings,
    Tokens,
    Usage,
)
from edged.client.requests import ChatOptions, Message, SamplingOptions
from edged.client.sync import Client, Stream
from edged.protocol.keys import ClientKey

if TYPE_CHECKING:
    from edged.client.aio import AsyncClient, AsyncStream

__all__ = [
    "Accepted",
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "BadReply",
    "Box",
    "ChatOptions",
    "Client",
    "ClientError",
    "ClientKey",
    "ConnectionLost",
    "DaemonNotFound",
    "Delta",
    "Embedding",
    "Event",
    "Hello",
    "Inference",
    "Label",
    "Message",
    "Model",
    "NoReply",
    "Progress",
    "Queued",
    "SamplingOptions",
    "Status",
    "Stream",
    "Tensor",
    "Timings",
    "Tokens",
    "UnknownError",
    "Usage",
    "UsageError",
]


def __getattr__(name: str) -> Any:
    """The asyncio half is imported when it is first named: a blocking program does not pay for asyncio."""
    if name in ("AsyncClient", "AsyncStream"):
        from edged.client import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
