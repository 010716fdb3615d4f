"""Bringing files down: every byte hashed before its file gets its name, in bounded memory, from where it broke off.

Each file has a thread, which brings its ranges in order and hashes every piece while it is in the processor's cache.
Where there are fewer large files than streams, helpers fetch ranges ahead, straight to their places (`landing`); these
are hashed from the page cache when their turn comes. Broken connections are tried again range by range. Wrong bytes are
not, unless some of them were left by an earlier attempt. A cache on the node (`node_cache`) is asked before the store.
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
from typing import Protocol

from skill_contract.manifest import File
from skill_store import transfer
from skill_store.errors import DigestMismatch, NoSpace, StoreError
from skill_store.landing import Landing
from skill_store.node_cache import NodeCache
from skill_store.protocol import CHUNK_BYTES, ObjectStore
from skill_store.retry import retried
from skill_store.transfer import Meter, Progress, compare, in_parallel, is_valid

FEWEST_STREAMS, MOST_STREAMS = 4, 16
WRITE_BYTES = 32 << 10
"""Written at once. File systems put more into larger blocks of memory, and a virtual machine whose free memory goes
back to its host has to fetch those from there: with 512 KiB a download took half as long again (benchmarks/store)."""
_UNKNOWN = "0" * 64
"""Instead of a digest that nobody has promised."""


class Digest(Protocol):
    """What `hashlib` returns."""

    def copy(self) -> Digest:
        """Returns another that goes on from here by itself."""
        ...

    def update(self, data: bytes | memoryview, /) -> None:
        """Takes more bytes."""
        ...

    def hexdigest(self) -> str:
        """Returns the digest of all so far."""
        ...


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
    with _helpers(files) as helpers:
        way = _Way(store, prefix, helpers, Meter(files, progress))
        in_parallel(way.meter, [partial(_land, way, folder, cache, file) for file in files])


def copy_down(store: ObjectStore, sizes: Mapping[str, int], folder: Path) -> None:
    """Downloads objects that no manifest speaks for: only their sizes (key to bytes) are known. Raises NoSpace."""
    files = [File(path=key, size=size, sha256=_UNKNOWN) for key, size in sizes.items()]
    with _helpers(files) as helpers:
        way = _Way(store, "", helpers, Meter(files, None))

        def land(file: File) -> None:
            with _space_for(file), Landing(file, folder / file.path) as landing:
                size, sha256 = way.receive(file, landing)
                compare(file.model_copy(update={"sha256": sha256}), size, sha256, place=f"{store.uri}/{file.path}")
                landing.keep()

        in_parallel(way.meter, [partial(land, file) for file in files])


@contextmanager
def _helpers(files: Sequence[File]) -> Iterator[ThreadPoolExecutor | None]:
    """Yields threads for as many streams as the processors can keep up with, less the large files' own."""
    streams = min(MOST_STREAMS, max(FEWEST_STREAMS, 2 * (os.cpu_count() or 1)))
    large = sum(file.size > transfer.RANGE_BYTES for file in files)
    if streams <= min(large, transfer.FILES_AT_ONCE) or not large:
        yield None
        return
    with ThreadPoolExecutor(streams - min(large, transfer.FILES_AT_ONCE)) as helpers:
        yield helpers


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
    helpers: ThreadPoolExecutor | None
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
        """Returns how many bytes of the object have landed, and their sha256."""
        step = transfer.RANGE_BYTES
        spans = [(start, min(step, file.size - start)) for start in range(0, file.size, step)]
        arrivals = [self._arrival(file, start, length, landing) for start, length in spans]
        digest: Digest = hashlib.sha256()
        landed = 0
        try:
            for (start, length), arrival in zip(spans, arrivals, strict=True):
                if arrival is None or arrival.cancel():
                    count, digest = self._inline(file, start, length, landing, digest)
                else:
                    count = arrival.result()
                    _hash_range(digest.update, landing.descriptor, start, count)
                landed += count
                self.meter.add(count)
                if count < length:  # the object ends here
                    break
        finally:
            _drain(arrivals)  # nobody may write to the descriptor after it is closed
        return landed, digest.hexdigest()

    def _arrival(self, file: File, start: int, length: int, landing: Landing) -> Future[int] | None:
        """Returns the arrival of a range that has come already, or that a helper may fetch; None without helpers."""
        if (start, length) in landing.landed:
            there: Future[int] = Future()
            there.set_result(length)
            return there
        if self.helpers is None:
            return None
        return self.helpers.submit(retried, partial(self._range, file, start, length, landing, _unhashed))

    def _inline(self, file: File, start: int, length: int, landing: Landing, digest: Digest) -> tuple[int, Digest]:
        """Returns the size of a range brought by this thread, and the digest with it; a new try forgets the last."""

        def attempt() -> tuple[int, Digest]:
            own = digest.copy()
            return self._range(file, start, length, landing, own.update), own

        return retried(attempt)

    def _range(
        self, file: File, start: int, length: int, landing: Landing, hashing: Callable[[memoryview], object]
    ) -> int:
        position = start
        for chunk in self.store.read(self.prefix + file.path, start, length):
            self.meter.check()
            view = memoryview(chunk)[: start + length - position]
            hashing(view)
            while view:
                written = os.pwrite(landing.descriptor, view[:WRITE_BYTES], position)
                position += written
                view = view[written:]
        if position == start + length:
            landing.add(start, length)
        return position - start


def _unhashed(_piece: memoryview) -> None:
    """What helpers bring is hashed when its turn comes."""


def _drain(arrivals: Sequence[Future[int] | None]) -> None:
    wait([arrival for arrival in arrivals if arrival and not arrival.cancel()])


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
