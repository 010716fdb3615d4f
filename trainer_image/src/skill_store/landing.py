"""A file that is still landing: which ranges have come, so that a container that starts again goes on.

Ranges are written at their places in a file of full length; a journal beside it says which are complete. Neither is
believed: the whole file is hashed before it gets its name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from skill_contract.manifest import File

PARTIAL = ".partial"
"""Suffix of a file that is still landing."""
PARTS = ".parts"
"""Suffix of its journal."""

Span = tuple[int, int]
"""Start and length, bytes."""


class Landing:
    """`<target>.partial` and `<target>.parts`, open. A context; what has come stays for the next attempt."""

    def __init__(self, file: File, target: Path) -> None:
        self._file, self._target = file, target
        self._partial, self._journal = target.with_name(target.name + PARTIAL), target.with_name(target.name + PARTS)
        self.landed: frozenset[Span] = frozenset()
        """Ranges that an earlier attempt has brought."""

    def __enter__(self) -> Self:
        self._target.parent.mkdir(parents=True, exist_ok=True)
        self.landed = self._earlier()
        if not self.landed:
            self._journal.write_text(f"{self._file.sha256}\n")
        self.descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666)
        self._lines = os.open(self._journal, os.O_WRONLY | os.O_APPEND)
        os.truncate(self.descriptor, self._file.size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lines)
        os.close(self.descriptor)

    def _earlier(self) -> frozenset[Span]:
        """Returns what the journal of an earlier attempt says; nothing where it was of another content."""
        try:
            digest, *lines = self._journal.read_text().splitlines(keepends=True)
            if digest.strip() != self._file.sha256 or self._partial.stat().st_size != self._file.size:
                return frozenset()
            return frozenset(span for span in _spans(lines) if 0 <= span[0] < sum(span) <= self._file.size)
        except (FileNotFoundError, ValueError):
            return frozenset()

    def add(self, start: int, length: int) -> None:
        """Notes a range that is there to its last byte; by any thread."""
        os.write(self._lines, f"{start} {length}\n".encode())

    def keep(self) -> None:
        """Gives the file its name."""
        self._partial.replace(self._target)
        self._journal.unlink()

    def discard(self) -> None:
        """Removes what has come."""
        self._partial.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)


def _spans(lines: list[str]) -> Iterator[Span]:
    for line in lines:
        start, _, length = line.partition(" ")
        if line.endswith("\n"):  # a process that was killed may have written half a line
            yield int(start), int(length)


def finished_name(path: str) -> str:
    """Returns the path that a file of a landing will have; other paths as they are."""
    return path.removesuffix(PARTIAL).removesuffix(PARTS)
