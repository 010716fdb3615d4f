"""What can go wrong with a model repository: one tree, so that a caller tells faults apart by class and not by text.

Every message names the value, the place and the way out; `reason` is the CamelCase word of conditions and termination
messages.
"""
# ruff: noqa: N818 - the classes carry the names of the reasons that a user reads

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

UNKNOWN_FAULT = 1
"""Exit code of a fault that may pass: whoever started the step tries again."""


class StoreError(ValueError):
    """A fault of the repository or of what is in it. `file` names the file concerned, where there is one."""

    reason: ClassVar[str] = "StoreFailed"
    retriable: ClassVar[bool] = False
    """True where the same call may succeed later without anybody changing anything."""

    def __init__(self, message: str, *, file: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.file = file


class NotFound(StoreError):
    """There is no such object, folder or bucket."""

    reason = "NotFound"


class BucketMissing(StoreError):
    """The bucket itself is not there: not the same as an empty repository."""

    reason = "NotFound"


class VersionMissing(NotFound):
    """A version has no manifest, so it is none."""

    reason = "VersionMissing"


class DigestMismatch(StoreError):
    """Bytes are not those that were promised. Never retried: the same bytes would come again."""

    reason = "DigestMismatch"


class HeadMoved(StoreError):
    """The head is not the version that the caller worked from: somebody else was faster."""

    reason = "HeadMoved"


class PreconditionFailed(StoreError):
    """A conditional write was refused, because the object exists or has changed."""

    reason = "PreconditionFailed"


class AccessDenied(StoreError):
    """Credentials are missing, wrong or not sufficient."""

    reason = "AccessDenied"


class BaseMismatch(StoreError):
    """An adapter belongs to other weights than those that an engine holds."""

    reason = "BaseMismatch"


class AdapterRefused(StoreError):
    """An engine does not take an adapter: its rank, its layers, the engine's settings."""

    reason = "AdapterRefused"


class NoSpace(StoreError):
    """The folder to download into, or the bucket to write to, is too small."""

    reason = "NoSpace"


class ModelInvalid(StoreError):
    """A folder is not a model that can be a version."""

    reason = "ModelInvalid"


class StoreUnfit(StoreError):
    """The object store lacks a feature without which two writers could overwrite each other."""

    reason = "StoreUnfit"


class StoreUnavailable(StoreError):
    """The object store does not answer, or broke off in the middle."""

    reason = "StoreUnavailable"
    retriable = True


class BeingRemoved(StoreUnavailable):
    """Retention is removing what stands in the same folder; once it is done, the folder may be filled anew."""


class UnknownFault(StoreError):
    """A fault that nobody thought of."""

    reason = "UnknownFault"
    retriable = True


@contextmanager
def nothing_else() -> Iterator[None]:
    """Lets StoreErrors through and makes one of everything else, so that a step in a pod never ends without a word."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise UnknownFault(f"{type(error).__name__}: {error}; the pod's log has the trace") from error
