"""Moving the files of a version: parallel, in bounded memory, every byte hashed before its file gets its name.

Large files come as ranges, in parallel, straight into a file of full length beside the target; a second hand hashes the
ranges in order from the page cache. Broken connections are tried again range by range. Wrong bytes are not.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from skill_contract.manifest import File
from skill_store.errors import DigestMismatch, NoSpace, StoreError
from skill_store.protocol import CHUNK_BYTES, ObjectStore
from skill_store.retry import retried

PARTIAL = ".partial"
"""Suffix of a file that is still landing."""
RANGE_BYTES = 64 << 20
RANGES_AT_ONCE = 8
FILES_AT_ONCE = 4

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all), never by two threads at once."""


class _Stopped(Exception):  # noqa: N818 - no fault of its own: another file has failed
    pass


class _Meter:
    """Counts what all threads have moved, and tells them to stop when one of them has failed."""

    def __init__(self, files: Iterable[File], progress: Progress | None) -> None:
        self._total = sum(file.size for file in files)
        self._done = 0
        self._progress = progress
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress:
                self._progress(self._done, self._total)

    def check(self) -> None:
        if self.stop.is_set():
            raise _Stopped


def hash_files(folder: Path, paths: Sequence[str]) -> tuple[File, ...]:
    """Returns size and sha256 of files of a folder, in the order of `paths`."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return tuple(pool.map(partial(_hash_file, folder), paths))


def is_valid(folder: Path, file: File) -> bool:
    """Returns whether the file is in the folder, byte for byte."""
    path = folder / file.path
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return _hash_file(folder, file.path).sha256 == file.sha256


def upload(
    store: ObjectStore, prefix: str, folder: Path, files: Sequence[File], progress: Progress | None = None
) -> None:
    """Uploads files of a folder to keys below a prefix; what is sent again counts again."""
    meter = _Meter(files, progress)

    def send(file: File) -> None:
        meter.check()
        retried(lambda: store.upload(prefix + file.path, folder / file.path, meter.add))

    _in_parallel(meter, [partial(send, file) for file in files])


def download(
    store: ObjectStore, prefix: str, folder: Path, files: Sequence[File], progress: Progress | None = None
) -> None:
    """Downloads files from below a prefix into a folder. Files that are there already and valid are kept.

    Raises:
        DigestMismatch: when an object is not what the manifest promises; the error names the file.
        NoSpace: when the disk is full.
    """
    with ThreadPoolExecutor(RANGES_AT_ONCE) as ranges:
        way = _Download(store, prefix, folder, ranges, _Meter(files, progress))
        _in_parallel(way.meter, [partial(way.land, file) for file in files])


def copy_down(store: ObjectStore, sizes: Mapping[str, int], folder: Path) -> None:
    """Downloads objects that no manifest speaks for: only their sizes (key to bytes) are known. Raises NoSpace."""
    files = [File(path=key, size=size, sha256="") for key, size in sizes.items()]
    with ThreadPoolExecutor(RANGES_AT_ONCE) as ranges:
        way = _Download(store, "", folder, ranges, _Meter(files, None))

        def land(file: File) -> None:
            size, sha256 = way.receive(file, folder / file.path)
            _compare(file.model_copy(update={"sha256": sha256}), size, sha256, place=f"{store.uri}/{file.path}")

        _in_parallel(way.meter, [partial(land, file) for file in files])


def verify(store: ObjectStore, prefix: str, files: Sequence[File], progress: Progress | None = None) -> None:
    """Reads every byte of objects and compares, without keeping anything; raises DigestMismatch."""
    meter = _Meter(files, progress)

    def rehash(file: File) -> None:
        found = retried(lambda: _rehash(store, prefix + file.path, file.size, meter))
        _compare(file, *found, place=f"{store.uri}/{prefix}{file.path}")
        meter.add(file.size)

    _in_parallel(meter, [partial(rehash, file) for file in files])


def _in_parallel(meter: _Meter, actions: Sequence[Callable[[], None]]) -> None:
    """Runs all actions; at the first that fails the others stop at their next chunk, and its error is raised."""
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        futures = [pool.submit(action) for action in actions]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            meter.stop.set()
            pool.shutdown(cancel_futures=True)
    errors = [error for future in futures if not future.cancelled() and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, _Stopped)):
        raise error


@dataclass(frozen=True)
class _Download:
    """Files on their way from below one prefix into one folder."""

    store: ObjectStore
    prefix: str
    folder: Path
    ranges: ThreadPoolExecutor
    meter: _Meter

    def land(self, file: File) -> None:
        """Brings one file in, unless it is there and valid already."""
        self.meter.check()
        if is_valid(self.folder, file):
            self.meter.add(file.size)
            return
        target = self.folder / file.path
        arriving = target.with_name(target.name + PARTIAL)
        found = self.receive(file, arriving)
        try:
            _compare(file, *found, place=f"{self.store.uri}/{self.prefix}{file.path}")
        except DigestMismatch:
            arriving.unlink()
            raise
        arriving.replace(target)

    def receive(self, file: File, target: Path) -> tuple[int, str]:
        """Returns how many bytes of the object have landed, and their sha256."""
        with _space_for(file):
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("w+b") as sink:
                sink.truncate(file.size)
                return self._receive(file, sink.fileno())

    def _receive(self, file: File, descriptor: int) -> tuple[int, str]:
        spans = [(start, min(RANGE_BYTES, file.size - start)) for start in range(0, file.size, RANGE_BYTES)]
        arrivals = [self.ranges.submit(retried, partial(self._range, file, *span, descriptor)) for span in spans]
        digest = hashlib.sha256()
        landed = 0
        try:
            for (start, length), arrival in zip(spans, arrivals, strict=True):
                count = arrival.result()
                _hash_range(digest.update, descriptor, start, count)
                landed += count
                self.meter.add(count)
                if count < length:  # the object ends here
                    break
        finally:
            _drain(arrivals)  # nobody may write to the descriptor after it is closed
        return landed, digest.hexdigest()

    def _range(self, file: File, start: int, length: int, descriptor: int) -> int:
        position = start
        for chunk in self.store.read(self.prefix + file.path, start, length):
            self.meter.check()
            view = memoryview(chunk)[: start + length - position]
            while view:
                written = os.pwrite(descriptor, view, position)
                position += written
                view = view[written:]
        return position - start


def _drain(arrivals: Sequence[Future[int]]) -> None:
    wait([arrival for arrival in arrivals if not arrival.cancel()])


def _hash_range(update: Callable[[bytes], None], descriptor: int, start: int, length: int) -> None:
    end = start + length
    while start < end and (chunk := os.pread(descriptor, min(CHUNK_BYTES, end - start), start)):
        update(chunk)
        start += len(chunk)


def _hash_file(folder: Path, path: str) -> File:
    with (folder / path).open("rb") as source:
        digest = hashlib.file_digest(source, "sha256")
        return File(path=path, size=source.tell(), sha256=digest.hexdigest())


def _rehash(store: ObjectStore, key: str, size: int, meter: _Meter) -> tuple[int, str]:
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


def _compare(file: File, size: int, sha256: str, *, place: str) -> None:
    if size != file.size:
        raise DigestMismatch(
            f"{place} has {size} bytes where the manifest says {file.size}; the version is damaged", file=file.path
        )
    if sha256 != file.sha256:
        raise DigestMismatch(
            f"{place} has sha256 {sha256[:12]}… where the manifest says {file.sha256[:12]}…; the version is damaged",
            file=file.path,
        )


@contextmanager
def _space_for(file: File) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StoreError(f"{file.path} cannot be written: {error}", file=file.path) from error
        raise NoSpace(
            f"no space for {file.path} ({file.size / 1e9:.2f} GB): {error.strerror}; give the volume more room",
            file=file.path,
        ) from error
