"""Bringing files down: every byte hashed before its file gets its name, in bounded memory, from where it broke off.

Large files come as ranges, in parallel, straight to their places (`landing`); a second hand hashes them in order from
the page cache. Broken connections are tried again range by range. Wrong bytes are not, unless some of them were left by
an earlier attempt. A cache on the node (`node_cache`) is asked before the store.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from skill_contract.manifest import File
from skill_store import transfer
from skill_store.errors import DigestMismatch, NoSpace, StoreError
from skill_store.landing import Landing
from skill_store.node_cache import NodeCache
from skill_store.protocol import CHUNK_BYTES, ObjectStore
from skill_store.retry import retried
from skill_store.transfer import Meter, Progress, compare, in_parallel, is_valid

RANGES_AT_ONCE = 8


def download(
    store: ObjectStore,
    prefix: str,
    folder: Path,
    files: Sequence[File],
    progress: Progress | None = None,
    *,
    cache: NodeCache | None = None,
) -> None:
    """Downloads files from below a prefix into a folder. Files and ranges that are there already and valid are kept.

    Raises:
        DigestMismatch: when an object is not what the manifest promises; the error names the file.
        NoSpace: when the disk is full.
    """
    with ThreadPoolExecutor(RANGES_AT_ONCE) as ranges:
        way = _Way(store, prefix, ranges, Meter(files, progress))
        in_parallel(way.meter, [partial(_land, way, folder, cache, file) for file in files])


def copy_down(store: ObjectStore, sizes: Mapping[str, int], folder: Path) -> None:
    """Downloads objects that no manifest speaks for: only their sizes (key to bytes) are known. Raises NoSpace."""
    files = [File(path=key, size=size, sha256="") for key, size in sizes.items()]
    with ThreadPoolExecutor(RANGES_AT_ONCE) as ranges:
        way = _Way(store, "", ranges, Meter(files, None))

        def land(file: File) -> None:
            with _space_for(file), Landing(file, folder / file.path) as landing:
                size, _ = way.receive(file, landing)
                compare(file, size, "", place=f"{store.uri}/{file.path}")
                landing.keep()

        in_parallel(way.meter, [partial(land, file) for file in files])


def _land(way: _Way, folder: Path, cache: NodeCache | None, file: File) -> None:
    way.meter.check()
    if is_valid(folder, file):
        way.meter.add(file.size)
        return
    target = folder / file.path
    with _space_for(file):
        if cache is None or not cache.bring(file, target, way.land, way.meter):
            way.land(file, target)


@dataclass(frozen=True)
class _Way:
    """From below one prefix of a store."""

    store: ObjectStore
    prefix: str
    ranges: ThreadPoolExecutor
    meter: Meter

    def land(self, file: File, target: Path) -> None:
        """Brings a file from the store to its place.

        Raises:
            DigestMismatch: when it is not what was promised.
        """
        wrong = self._try(file, target)
        if wrong is not None:
            # Some of it came from an earlier attempt, which may have died with its machine. Once more, all of it.
            self.meter.add(-wrong)
            self._try(file, target)

    def _try(self, file: File, target: Path) -> int | None:
        """Returns None, or how many bytes have come of which some older ones are wrong."""
        with Landing(file, target) as landing:
            size, sha256 = self.receive(file, landing)
            try:
                compare(file, size, sha256, place=f"{self.store.uri}/{self.prefix}{file.path}")
            except DigestMismatch:
                landing.discard()
                if not landing.landed:
                    raise
                return size
            landing.keep()
        return None

    def receive(self, file: File, landing: Landing) -> tuple[int, str]:
        """Returns how many bytes of the object have landed, and their sha256 (empty where none is promised)."""
        step = transfer.RANGE_BYTES
        spans = [(start, min(step, file.size - start)) for start in range(0, file.size, step)]
        arrivals = [self._arrival(file, start, length, landing) for start, length in spans]
        digest = hashlib.sha256() if file.sha256 else None
        landed = 0
        try:
            for (start, length), arrival in zip(spans, arrivals, strict=True):
                count = arrival.result()
                if digest:
                    _hash_range(digest.update, landing.descriptor, start, count)
                landed += count
                self.meter.add(count)
                if count < length:  # the object ends here
                    break
        finally:
            _drain(arrivals)  # nobody may write to the descriptor after it is closed
        return landed, digest.hexdigest() if digest else ""

    def _arrival(self, file: File, start: int, length: int, landing: Landing) -> Future[int]:
        if (start, length) in landing.landed:
            there: Future[int] = Future()
            there.set_result(length)
            return there
        return self.ranges.submit(retried, partial(self._range, file, start, length, landing))

    def _range(self, file: File, start: int, length: int, landing: Landing) -> int:
        position = start
        for chunk in self.store.read(self.prefix + file.path, start, length):
            self.meter.check()
            view = memoryview(chunk)[: start + length - position]
            while view:
                written = os.pwrite(landing.descriptor, view, position)
                position += written
                view = view[written:]
        if position == start + length:
            landing.add(start, length)
        return position - start


def _drain(arrivals: Sequence[Future[int]]) -> None:
    wait([arrival for arrival in arrivals if not arrival.cancel()])


def _hash_range(update: Callable[[bytes], None], descriptor: int, start: int, length: int) -> None:
    end = start + length
    while start < end and (chunk := os.pread(descriptor, min(CHUNK_BYTES, end - start), start)):
        update(chunk)
        start += len(chunk)


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
