"""What has been finished, one JSON object a line, and who is at work on what. Knows files; knows no model.

Any number of processes share a journal: each line is written in one piece under a lock, and a run is claimed by a lock
that the kernel releases when its process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from skill_contract.model import ContractError, Document
from skill_trainer.evaluate import SuiteScores


class Finished(Document):
    """What a state of the model answers, and how it came about."""

    key: str
    """Hash of all that the answers depend on."""
    label: str
    """For people: `variant/skill/seed`, or `base`."""
    scores: dict[str, SuiteScores] = Field({})
    losses: tuple[float, ...] = ()
    seconds: dict[str, float] = Field({})
    """Wall time of training and of measuring."""
    fault: str = ""
    """Why there are no scores: the run diverged."""


class Journal:
    """`journal.jsonl` in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "journal.jsonl"
        self._claims = folder / "claims"
        self._claims.mkdir(exist_ok=True)

    def read(self) -> dict[str, Finished]:
        """Returns everything finished, by key. A last line that was cut off by a crash is left out."""
        if not self._path.exists():
            return {}
        found: dict[str, Finished] = {}
        for line in self._path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and line.strip():
                each = _parsed(line, self._path)
                found[each.key] = each
        return found

    def append(self, finished: Finished) -> None:
        """Adds a line; it is on the disk when this returns."""
        with self._path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _remove_torn_line(file.fileno())
            file.write(finished.dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def claim(self, key: str, *, wait: bool = False) -> Iterator[bool]:
        """Yields whether this process has the run for itself; `wait` waits until it has."""
        with (self._claims / key).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def _parsed(line: bytes, path: Path) -> Finished:
    try:
        return Finished.parse_json(line)
    except ContractError as error:
        raise ContractError(f"{path}: is no journal of this program ({error}): give another --out") from error


def _remove_torn_line(descriptor: int) -> None:
    """Cuts off what a crash has left without its end of line."""
    size = os.fstat(descriptor).st_size
    whole = os.pread(descriptor, size, 0).rfind(b"\n") + 1
    if whole < size:
        os.ftruncate(descriptor, whole)
