"""What can go wrong on this side of the socket, and how the daemon's own `error` answers become exceptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edged.errors import REQUEST_ERRORS, EdgedError, RequestError


class ClientError(EdgedError):
    """There is no answer to speak of; `str()` says why and what to do."""


class DaemonNotFound(ClientError, ConnectionError):
    """No daemon listens where one was looked for. `looked_at` pairs each endpoint with what is wrong there."""

    def __init__(self, looked_at: tuple[tuple[str, str], ...]) -> None:
        self.looked_at = looked_at
        places = "; ".join(f"{endpoint}: {why}" for endpoint, why in looked_at)
        super().__init__(
            f"no edged daemon found ({places}); start one with `edged serve`, or name its endpoint in EDGED_ENDPOINT"
        )


class NoReply(ClientError, TimeoutError):
    """The daemon is silent for longer than the client waits (`timeout_s`)."""


class ConnectionLost(ClientError, ConnectionError):
    """The daemon went away with requests of this client unanswered; sending them again is safe once it is back."""


class BadReply(ClientError):
    """What came back is not edged/1: something else answers at this endpoint."""


class UsageError(ClientError, ValueError):
    """The call itself is wrong; nothing was sent."""


class UnknownError(RequestError):
    """An error code this client does not know: the daemon is newer. `wire_code` is the code as sent."""

    def __init__(self, wire_code: str, message: str, *, retryable: bool, retry_after_ms: int | None = None) -> None:
        super().__init__(f"{wire_code}: {message}", retry_after_ms=retry_after_ms)
        self.wire_code = wire_code
        self.retryable = retryable  # type: ignore[misc]  # of the class elsewhere; here only the daemon knows it


def error_of(reply: Mapping[str, Any]) -> RequestError:
    """The exception for an `error` event."""
    code, message = str(reply.get("code")), str(reply.get("message"))
    retry_after_ms, most = _int(reply.get("retry_after_ms")), _int(reply.get("max_tokens_fit"))
    kind = REQUEST_ERRORS.get(code)
    if kind is None:
        return UnknownError(code, message, retryable=bool(reply.get("retryable")), retry_after_ms=retry_after_ms)
    return kind(message, retry_after_ms=retry_after_ms, max_tokens_fit=most)


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None
