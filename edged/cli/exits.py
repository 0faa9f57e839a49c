"""Exit statuses a script can rely on, and which error ends with which."""

from __future__ import annotations

from edged.client.errors import ConnectionLost, DaemonNotFound, NoReply, UsageError
from edged.errors import EdgedError, RequestError, TryLater

OK = 0
ERROR = 1
USAGE = 2
NO_DAEMON = 3
TRY_LATER = 4
INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell shows it

HELP = (
    "Exit status: 0 ok · 1 an error answer, or something the owner must mend · 2 wrong usage · 3 no daemon there · "
    "4 busy or not ready, try again later · 130 interrupted."
)


def exit_status(error: EdgedError) -> int:
    """The exit status for an error of ours."""
    if isinstance(error, DaemonNotFound):
        return NO_DAEMON
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, (NoReply, ConnectionLost, TryLater)) or (isinstance(error, RequestError) and error.retryable):
        return TRY_LATER
    return ERROR


def error_map(error: EdgedError) -> dict[str, object]:
    """An error as `--json` shows it: the wire's fields for an answer, a code of our own otherwise."""
    if isinstance(error, RequestError):
        shown: dict[str, object] = {"code": error.code, "message": error.message, "retryable": error.retryable}
        if error.retry_after_ms is not None:
            shown["retry_after_ms"] = error.retry_after_ms
        if error.max_tokens_fit is not None:
            shown["max_tokens_fit"] = error.max_tokens_fit
        return {"error": shown}
    code = {NO_DAEMON: "no_daemon", USAGE: "usage", TRY_LATER: "no_reply"}.get(exit_status(error), "owner_error")
    code = "try_later" if isinstance(error, TryLater) else code
    return {"error": {"code": code, "message": str(error), "retryable": exit_status(error) == TRY_LATER}}
