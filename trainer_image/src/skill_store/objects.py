"""From a URI to the object store that holds it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import unquote, urlsplit

from skill_store.errors import NoSpace, StoreError
from skill_store.folder import FolderStore, readable
from skill_store.protocol import Entry, ObjectStore, Stored
from skill_store.retry import retried
from skill_store.s3 import S3Store

__all__ = ["Entry", "ObjectStore", "Stored", "open_store", "opened"]

_MAX_BYTES = 5 << 40
"""Source: S3 API, the largest object."""


def open_store(uri: str) -> ObjectStore:
    """Returns the store at `s3://bucket/prefix`, `file:///folder` or a plain path. Nothing is read yet.

    Raises:
        StoreError: for any other scheme.
    """
    scheme, place = split_uri(uri)
    if scheme == "s3":
        bucket, _, prefix = place.partition("/")
        return S3Store(bucket, prefix)
    return FolderStore(Path(place))


@contextmanager
def opened(uri: str) -> Iterator[BinaryIO]:
    """Yields one file (`s3://bucket/key`, `file:///path` or a plain path) to read and seek in, never whole in memory.

    An object of S3 is copied to a temporary file first, which goes with the context.

    Raises:
        NotFound, AccessDenied, StoreError: where it cannot be read; NoSpace where the copy has no room.
    """
    scheme, place = split_uri(uri)
    if scheme == "file":
        with readable(Path(place)), Path(place).open("rb") as file:
            yield file
        return
    bucket, _, key = place.partition("/")
    with tempfile.TemporaryFile() as copy:
        retried(lambda: _fetch_rest(S3Store(bucket, ""), key, copy))
        copy.seek(0)
        yield copy


def _fetch_rest(store: S3Store, key: str, copy: IO[bytes]) -> None:
    """Goes on where an earlier attempt broke off."""
    for chunk in store.read(key, copy.tell(), _MAX_BYTES):
        try:
            copy.write(chunk)
        except OSError as error:
            raise NoSpace(f"no room in {tempfile.gettempdir()} for a copy of {store.uri}/{key}: {error}") from error


def split_uri(uri: str) -> tuple[str, str]:
    """Returns the scheme (`s3` or `file`) and the place in it; raises StoreError for what is no address."""
    if any(character < " " or character == "\x7f" for character in unquote(uri)):
        raise StoreError(f"{uri!r:.200} has control characters, as no address has: remove them")
    if "://" not in uri:
        return "file", uri
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise StoreError(f"{uri!r:.200} is no address ({error}); use s3://bucket/prefix or file:///folder") from error
    if parts.scheme == "s3" and parts.netloc:
        return "s3", uri.removeprefix("s3://")
    if parts.scheme == "file" and not parts.netloc:
        return "file", unquote(parts.path)
    raise StoreError(f"{uri!r:.200} is no place for a model repository; use s3://bucket/prefix or file:///folder")
