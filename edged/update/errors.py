"""Why an update did not happen. Each kind has a code for `update status`, and says whether waiting may help."""

from __future__ import annotations

from typing import ClassVar

from edged.errors import OwnerError


class UpdateError(OwnerError):
    """An update ended without a new version; what ran before still runs."""

    code: ClassVar[str] = "failed"
    retryable: ClassVar[bool] = False


class Unreachable(UpdateError):
    """The source does not answer, or not with what was asked for."""

    code = "unreachable"
    retryable = True


class TooSlow(Unreachable):
    """The source answers, but slower than the least rate that is allowed."""

    code = "too_slow"


class Untrusted(UpdateError):
    """What came is not what the key holders signed, or older than what was seen before."""

    code = "untrusted"


class Expired(UpdateError):
    """What came was signed, but is too old by now: held back by somebody, or by the publisher, or a clock is wrong."""

    code = "expired"
    retryable = True


class NoSpace(UpdateError):
    """The new version does not fit on the disk."""

    code = "no_space"
    retryable = True


class DiskFailed(UpdateError):
    """The disk would not read or write."""

    code = "disk_failed"
    retryable = True


class UpdateBusy(UpdateError):
    """Another updater is at work on this state directory."""

    code = "busy"
    retryable = True
