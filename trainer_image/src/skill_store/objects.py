"""From a URI to the object store that holds it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from skill_store.errors import StoreError
from skill_store.folder import FolderStore
from skill_store.protocol import Entry, ObjectStore, Stored
from skill_store.s3 import S3Store

__all__ = ["Entry", "ObjectStore", "Stored", "open_store", "read_bytes"]


def open_store(uri: str) -> ObjectStore:
    """Returns the store at `s3://bucket/prefix`, `file:///folder` or a plain path. Nothing is read yet.

    Raises:
        StoreError: for any other scheme.
    """
    scheme, place = _split(uri)
    if scheme == "s3":
        bucket, _, prefix = place.partition("/")
        return S3Store(bucket, prefix)
    return FolderStore(Path(place))


def read_bytes(uri: str) -> bytes:
    """Returns one file, whole: `s3://bucket/key`, `file:///path` or a plain path; raises NotFound, AccessDenied."""
    scheme, place = _split(uri)
    if scheme == "s3":
        bucket, _, key = place.partition("/")
        return S3Store(bucket, "").get(key).data
    return FolderStore(Path(place).parent).get(Path(place).name).data


def _split(uri: str) -> tuple[str, str]:
    if "://" not in uri:
        return "file", uri
    parts = urlsplit(uri)
    if parts.scheme == "s3" and parts.netloc:
        return "s3", uri.removeprefix("s3://")
    if parts.scheme == "file" and not parts.netloc:
        return "file", unquote(parts.path)
    raise StoreError(f"{uri!r} is no place for a model repository; use s3://bucket/prefix or file:///folder")
