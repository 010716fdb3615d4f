"""Files of versions kept on a node, by their digests, for the pods that come later: a folder that pods share.

Several pods use it at once, knowing nothing of each other: one downloads a file while the others wait for it, by flock.
Nothing in it is believed: a file is copied into the pod's own volume, and hashed there. A cache that is full, read-only
or broken costs time and never a pod.
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skill_contract.manifest import File
from skill_store.errors import NoSpace
from skill_store.landing import PARTIAL, finished_name
from skill_store.transfer import Meter, hash_file

FREE_SHARE = 0.15
"""Of a volume, stays free where no limit is set: below it, by default, the kubelet evicts pods (imagefs.available)."""
_LOOK_SECONDS = 0.2
_SAY_SECONDS = 10.0

_log = logging.getLogger(__name__)


class NodeCache:
    """`<folder>/blobs/<sha256>`, the least recently used of which go when there are too many."""

    def __init__(self, folder: Path, limit_bytes: int | None, wanted: Iterable[File]) -> None:
        """`wanted` are the files of the version that is being fetched: none of them makes way for another."""
        self._folder, self._blobs, self._locks = folder, folder / "blobs", folder / "locks"
        self._limit = limit_bytes
        self._wanted = {file.sha256 for file in wanted}

    def bring(self, file: File, target: Path, fetch: Callable[[File, Path], None], meter: Meter) -> bool:
        """Brings a file to its place, verified; by `fetch` into the cache where it is not there yet.

        Returns False where the cache cannot help: then nothing is at the place, and the log says why.
        """
        blob = self._blobs / file.sha256
        try:
            fetched = self._fill(file, blob, fetch, meter)
        except (OSError, NoSpace) as error:
            _log.warning("%s comes without the cache: %s", file.path, error)
            return False
        if fetched is None:
            _log.info("%s comes without the cache, in which there is no room for %.2f GB", file.path, file.size / 1e9)
            return False
        is_right = _copied(blob, file, target)
        if not is_right:
            _log.warning("%s in the cache was damaged or is gone", file.path)
            blob.unlink(missing_ok=True)
        meter.add(file.size * (is_right - fetched))  # what was fetched has been counted
        return is_right

    def _fill(self, file: File, blob: Path, fetch: Callable[[File, Path], None], meter: Meter) -> bool | None:
        """Returns whether the file had to be fetched; None where there is no room for it."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._locks.mkdir(exist_ok=True)
        if _use(blob):
            return False
        with self._alone(file, meter):
            if _use(blob):
                return False
            if not self._reserve(file, blob):
                return None
            _log.info("fetching %s for all pods of this node", file.path)
            fetch(file, blob)
        return True

    @contextmanager
    def _alone(self, file: File, meter: Meter) -> Iterator[None]:
        """Waits until no other pod fetches the file. The lock goes with its process, however that ends."""
        said = time.monotonic()
        with self._lock_of(file.sha256).open("ab") as lock:
            while not _locked(lock.fileno()):
                meter.check()
                if time.monotonic() - said >= _SAY_SECONDS:
                    _log.info("waiting: another pod on this node is fetching %s", file.path)
                    said = time.monotonic()
                time.sleep(_LOOK_SECONDS)
            yield

    def _lock_of(self, sha256: str) -> Path:
        return self._locks / sha256[:2]  # 256 at most, so none is ever removed: that could not be done safely

    def _reserve(self, file: File, blob: Path) -> bool:
        """Returns whether there is room, which is then taken by a file of full length; older ones make way for it."""
        arriving = blob.with_name(blob.name + PARTIAL)
        with self._accounts():
            if arriving.is_file() and arriving.stat().st_size == file.size:  # of an attempt that broke off
                return True
            if not self._evict(lambda used, free: self._fits(used, free, file.size)):
                return False
            with arriving.open("ab") as reserved:
                reserved.truncate(file.size)
            return True

    def _fits(self, used: int, free: int, size: int) -> bool:
        spare = 0 if self._limit is not None else FREE_SHARE * shutil.disk_usage(self._folder).total
        return used + size <= (math.inf if self._limit is None else self._limit) and free - size >= spare

    def make_way(self, folder: Path, needed: int) -> None:
        """Removes files, the least recently used first, until a folder on the same volume has room."""
        if self._blobs.is_dir() and self._blobs.stat().st_dev == folder.stat().st_dev:
            with suppress(OSError), self._accounts():
                self._evict(lambda _used, _free: shutil.disk_usage(folder).free >= needed)

    @contextmanager
    def _accounts(self) -> Iterator[None]:
        with (self._folder / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _evict(self, enough: Callable[[int, int], bool]) -> bool:
        """Removes files until it is enough, judged by the bytes that it uses and those free; False: it never was."""
        found = []
        for path in self._blobs.iterdir():
            with suppress(FileNotFoundError):  # renamed by a pod whose file has landed
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        used = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if enough(used, shutil.disk_usage(self._folder).free):
                return True
            if self._may_go(path):
                path.unlink(missing_ok=True)
                used -= size
        return enough(used, shutil.disk_usage(self._folder).free)

    def _may_go(self, path: Path) -> bool:
        digest = finished_name(path.name)
        if digest in self._wanted:
            return False
        if digest == path.name:  # complete; who is copying it now has it open, and reads on
            return True
        with self._lock_of(digest).open("ab") as lock:
            return _locked(lock.fileno())


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _use(blob: Path) -> bool:
    """Returns whether a file is there, and notes that it is used now."""
    try:
        os.utime(blob)
    except FileNotFoundError:
        return False
    return True


def _copied(blob: Path, file: File, target: Path) -> bool:
    """Returns whether a copy with the right content has got its name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    arriving = target.with_name(target.name + PARTIAL)
    try:
        with blob.open("rb") as source, arriving.open("wb") as sink:
            _copy(source.fileno(), sink.fileno())
    except FileNotFoundError:
        return False
    if hash_file(arriving.parent, arriving.name).sha256 != file.sha256:
        arriving.unlink()
        return False
    arriving.replace(target)
    return True


def _copy(source: int, sink: int) -> None:
    """Copies in the kernel; on XFS and Btrfs, and within one volume, that shares the blocks and costs nothing."""
    try:
        while os.copy_file_range(source, sink, 1 << 30):
            pass
    except OSError:
        # Of two file systems, or of one that cannot. A full disk is met again, and said, below.
        os.lseek(source, 0, os.SEEK_SET)
        os.ftruncate(sink, 0)
        os.lseek(sink, 0, os.SEEK_SET)
        while os.sendfile(sink, source, None, 1 << 30):
            pass
