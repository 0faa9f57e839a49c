"""The one tree of errors: each says who must act and how.

`RequestError` and its children travel to clients as the wire's `error` event; their messages never hold a full path,
a pid or another client's text. `OwnerError` and its children are for the owner of the box (CLI and log) and may.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class EdgedError(Exception):
    """Root of everything edged raises on purpose."""


class RequestError(EdgedError):
    """An answer to a client. `code` is the wire's; `retryable` says whether the same request may succeed later."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, retry_after_ms: int | None = None, max_tokens_fit: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.max_tokens_fit = max_tokens_fit


class InvalidRequest(RequestError):
    """The request itself is wrong; the message names the field."""

    code = "invalid_request"


class Unsupported(RequestError):
    """The loaded backend cannot honour what was asked."""

    code = "unsupported"


class Unauthorized(RequestError):
    """This client may not use this op."""

    code = "unauthorized"


class NotFound(RequestError):
    """The model, request or session named does not exist for this client."""

    code = "not_found"


class TooLarge(RequestError):
    """Can never fit; `max_tokens_fit` is the most that can (tokens, prompt and answer together)."""

    code = "too_large"


class Busy(RequestError):
    """Would fit later; `retry_after_ms` says when to come back."""

    code = "busy"
    retryable = True


class DeadlineExceeded(RequestError):
    """The client's deadline passed before work began."""

    code = "deadline_exceeded"


class Cancelled(RequestError):
    """The client cancelled before work began."""

    code = "cancelled"


class SlowConsumer(RequestError):
    """The client did not read its replies; its own request was ended, nobody else's."""

    code = "slow_consumer"


class EngineLost(RequestError):
    """The engine process ended under this request; a fresh one is on its way."""

    code = "engine_lost"
    retryable = True


class Quarantined(RequestError):
    """This very input ended the engine before and is not tried again."""

    code = "quarantined"


class Unavailable(RequestError):
    """Starting, draining, or the model failed to load: the message says which."""

    code = "unavailable"
    retryable = True


class Internal(RequestError):
    """Our own bug; the log has the detail."""

    code = "internal"


REQUEST_ERRORS: dict[str, type[RequestError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        Unsupported,
        Unauthorized,
        NotFound,
        TooLarge,
        Busy,
        DeadlineExceeded,
        Cancelled,
        SlowConsumer,
        EngineLost,
        Quarantined,
        Unavailable,
        Internal,
    )
}


class OwnerError(EdgedError):
    """Something the owner of the box must mend; `str()` says what and how. The CLI prints it without a stack trace."""


class TryLater(OwnerError):
    """Nothing is wrong on this box: the same command may succeed later (a network, another process)."""


class ConfigError(OwnerError):
    """A setting is unknown, malformed or out of range; the message names file, line or variable, and the key."""


class ModelError(OwnerError):
    """A model folder is missing, incomplete or refused.

    `file` is the offending file relative to the model's folder ("" for the folder itself), safe to put on the wire;
    `reason` says what is wrong with it.
    """

    def __init__(self, folder: Path, file: str, reason: str) -> None:
        super().__init__(f"{folder / file if file else folder}: {reason}")
        self.folder = folder
        self.file = file
        self.reason = reason


class HardwareError(OwnerError):
    """A probe, trial or memory reading that was needed could not be had."""
