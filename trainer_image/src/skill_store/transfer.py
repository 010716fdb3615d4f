"""Moving the files of a version: parallel, in bounded memory, every byte hashed. What comes down: `download`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from skill_contract.manifest import File
from skill_store.errors import DigestMismatch
from skill_store.protocol import ObjectStore
from skill_store.retry import retried

RANGE_BYTES = 64 << 20
FILES_AT_ONCE = 4

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all), never by two threads at once."""


class Stopped(Exception):  # noqa: N818 - no fault of its own
    """Another file has failed, so this one need not go on."""


class Meter:
    """Counts what all threads have moved, and tells them to stop when one of them has failed."""

    def __init__(self, files: Iterable[File], progress: Progress | None) -> None:
        self._total = sum(file.size for file in files)
        self._done = 0
        self._progress = progress
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def add(self, count: int) -> None:
        """Counts bytes that have moved."""
        with self._lock:
            self._done += count
            if self._progress:
                self._progress(self._done, self._total)

    def check(self) -> None:
        """Raises Stopped once another file has failed."""
        if self.stop.is_set():
            raise Stopped


def hash_files(folder: Path, paths: Sequence[str]) -> tuple[File, ...]:
    """Returns size and sha256 of files of a folder, in the order of `paths`."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return tuple(pool.map(partial(hash_file, folder), paths))


def is_valid(folder: Path, file: File) -> bool:
    """Returns whether the file is in the folder, byte for byte."""
    path = folder / file.path
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return hash_file(folder, file.path).sha256 == file.sha256


def upload(
    store: ObjectStore, prefix: str, folder: Path, files: Sequence[File], progress: Progress | None = None
) -> None:
    """Uploads files of a folder to keys below a prefix; what is sent again counts again."""
    meter = Meter(files, progress)

    def send(file: File) -> None:
        meter.check()
        retried(lambda: store.upload(prefix + file.path, folder / file.path, meter.add))

    in_parallel(meter, [partial(send, file) for file in files])


def verify(store: ObjectStore, prefix: str, files: Sequence[File], progress: Progress | None = None) -> None:
    """Reads every byte of objects and compares, without keeping anything; raises DigestMismatch."""
    meter = Meter(files, progress)

    def rehash(file: File) -> None:
        found = retried(lambda: _rehash(store, prefix + file.path, file.size, meter))
        compare(file, *found, place=f"{store.uri}/{prefix}{file.path}")
        meter.add(file.size)

    in_parallel(meter, [partial(rehash, file) for file in files])


def in_parallel(meter: Meter, actions: Sequence[Callable[[], None]]) -> None:
    """Runs all actions; at the first that fails the others stop at their next chunk, and its error is raised."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        futures = [pool.submit(action) for action in actions]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            meter.stop.set()
            pool.shutdown(cancel_futures=True)
    errors = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
        raise error


def hash_file(folder: Path, path: str) -> File:
    """Returns size and sha256 of one file of a folder."""
    with (folder / path).open("rb") as source:
        digest = hashlib.file_digest(source, "sha256")
        return File(path=path, size=source.tell(), sha256=digest.hexdigest())


def _rehash(store: ObjectStore, key: str, size: int, meter: Meter) -> tuple[int, str]:
    digest = hashlib.sha256()
    count = 0
    for chunk in _ranges_of(store, key, size):
        meter.check()
        digest.update(chunk)
        count += len(chunk)
    return count, digest.hexdigest()


def _ranges_of(store: ObjectStore, key: str, size: int) -> Iterator[bytes]:
    # One byte more than promised, so that an object that has grown is seen.
    for start in range(0, size + 1, RANGE_BYTES):
        yield from store.read(key, start, min(RANGE_BYTES, size + 1 - start))


def compare(file: File, size: int, sha256: str, *, place: str) -> None:
    """Raises DigestMismatch where what was found at a place is not the file that was promised."""
    if size != file.size:
        raise DigestMismatch(
            f"{place} has {size} bytes where the manifest says {file.size}; the version is damaged", file=file.path
        )
    if sha256 != file.sha256:
        raise DigestMismatch(
            f"{place} has sha256 {sha256[:12]}… where the manifest says {file.sha256[:12]}…; the version is damaged",
            file=file.path,
        )
