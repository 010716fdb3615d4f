"""What a repository asks of an object store. No implementation, so that `s3` and `folder` are equals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 512 << 10
"""Size of the pieces in which large objects pass through memory.

Small enough to stay in a processor's cache, large enough that threads seldom wait for each other between two of them.
"""


@dataclass(frozen=True)
class Stored:
    """A small object, and the token that a later conditional write compares."""

    data: bytes
    etag: str


@dataclass(frozen=True)
class Entry:
    """One line of a listing."""

    key: str
    size: int
    modified: float
    """When it was written, Unix seconds, by the store's clock."""


class ObjectStore(Protocol):
    """Objects below one URI. Keys are relative to it. Every method raises a StoreError when the store fails."""

    @property
    def uri(self) -> str:
        """Returns the URI without a slash at the end."""
        ...

    def get(self, key: str) -> Stored:
        """Returns a whole small object; raises NotFound."""
        ...

    def read(self, key: str, start: int, length: int) -> Iterator[bytes]:
        """Yields the bytes of a range in pieces of at most CHUNK_BYTES; fewer in all where the object ends before."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Writes a small object as a whole and returns its etag.

        Raises:
            PreconditionFailed: when `if_absent` and the object exists, or it has not the etag `if_match`.
        """
        ...

    def upload(self, key: str, path: Path, moved: Callable[[int], None]) -> None:
        """Writes a file of any size; the object appears as a whole or not at all.

        `moved` is called, by any thread, with the bytes of each piece that has gone.
        """
        ...

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields all objects whose key begins with a prefix (a folder with its slash, or nothing), sorted by key."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Removes objects; one that is not there is not an error."""
        ...
