# SPDX-License-Identifier: Apache-2.0
"""What the daemon, or the wait for it, ends a request with: an exception for each status, named as gRPC names them."""
from __future__ import annotations

from typing import Dict, Optional, Type


class Error(Exception):
    """A request that did not get its answer. `status` is its name, `retry_after` seconds after which the same request
    may do better, None when nobody told."""

    status = "INTERNAL"

    def __init__(self, message: str, retry_after: Optional[float] = None):
        super().__init__(message)
        self.retry_after = retry_after


class InvalidArgument(Error):
    """The request is wrong; sending it again will not help."""
    status = "INVALID_ARGUMENT"


class NotFound(Error):
    """No such model or version."""
    status = "NOT_FOUND"


class ResourceExhausted(Error):
    """The daemon is full, or too much is outstanding: try later."""
    status = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(Error):
    """Not done in the time given."""
    status = "DEADLINE_EXCEEDED"


class Unavailable(Error):
    """No daemon answers, or none is ready: try later."""
    status = "UNAVAILABLE"


class Cancelled(Error):
    """cancel() came in time."""
    status = "CANCELLED"


class Internal(Error):
    """A fault of the daemon's, or a request that kills its workers."""
    status = "INTERNAL"


class Unimplemented(Error):
    """The daemon does not know the operation."""
    status = "UNIMPLEMENTED"


class PermissionDenied(Error):
    """Only root and the daemon's own user may."""
    status = "PERMISSION_DENIED"


_CLASSES: Dict[str, Type[Error]] = {c.status: c for c in Error.__subclasses__()}


def make(status: str, message: str, retry_after_ms: Optional[int] = None) -> Error:
    """The exception of a reply; an unknown status is INTERNAL."""
    return _CLASSES.get(status, Internal)(message, None if retry_after_ms is None else retry_after_ms / 1000)
