"""An object store in a local folder, so that a laptop needs no S3. Compare-and-swap is a lock and a rename."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from skill_store.errors import AccessDenied, NotFound, PreconditionFailed
from skill_store.protocol import CHUNK_BYTES, Entry, Stored

_LOCK = ".lock"
_INCOMING = ".incoming"
"""Files being written; outside every prefix that a repository lists."""


class FolderStore:
    """Objects as files below a folder. Writers of the same machine exclude each other by flock."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def uri(self) -> str:
        """Returns `file:///…`."""
        return f"file://{self.root}"

    def get(self, key: str) -> Stored:
        """Returns a whole object; the etag is the sha256 of its bytes."""
        with readable(self.root / key):
            data = (self.root / key).read_bytes()
        return Stored(data, _etag(data))

    def read(self, key: str, start: int, length: int) -> Iterator[bytes]:
        """Yields a range of a file."""
        with readable(self.root / key), (self.root / key).open("rb") as source:
            source.seek(start)
            while length > 0 and (chunk := source.read(min(CHUNK_BYTES, length))):
                length -= len(chunk)
                yield chunk

    def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Writes an object; the condition is judged and the file renamed under the same lock."""
        with self._incoming() as temporary:
            _write_through(temporary, data)
            with self._locked():
                self._check(key, if_absent=if_absent, if_match=if_match)
                self._move(temporary, key)
        return _etag(data)

    def upload(self, key: str, path: Path, moved: Callable[[int], None]) -> None:
        """Copies a file into the store."""
        with self._incoming() as temporary:
            shutil.copyfile(path, temporary)
            with temporary.open("rb") as copied:
                os.fsync(copied.fileno())
            with self._locked():
                self._move(temporary, key)
        moved(path.stat().st_size)

    def list(self, prefix: str) -> Iterator[Entry]:
        """Yields the files below a folder, or all."""
        folder = self.root / prefix
        paths = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
        for path in paths:
            key = path.relative_to(self.root).as_posix()
            if key != _LOCK and not key.startswith(f"{_INCOMING}/"):
                with suppress(FileNotFoundError):  # removed since
                    found = path.stat()
                    yield Entry(key, found.st_size, found.st_mtime)

    def delete(self, keys: Iterable[str]) -> None:
        """Removes files, and the folders that they leave empty."""
        with self._locked():
            for key in keys:
                (self.root / key).unlink(missing_ok=True)
                self._prune((self.root / key).parent)

    def _check(self, key: str, *, if_absent: bool, if_match: str | None) -> None:
        path = self.root / key
        if if_absent and path.exists():
            raise PreconditionFailed(f"{self.uri}/{key} exists already", file=key)
        if if_match is not None and not (path.exists() and _etag(path.read_bytes()) == if_match):
            raise PreconditionFailed(f"{self.uri}/{key} has changed", file=key)

    def _move(self, temporary: Path, key: str) -> None:
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _prune(self, folder: Path) -> None:
        with suppress(OSError):  # not empty, or gone already
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        folder = self.root / _INCOMING
        with _writable(self.root):
            folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / secrets.token_hex(16)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with _writable(self.root), (self.root / _LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what the file system says of a file that cannot be read into NotFound or AccessDenied."""
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise NotFound(f"there is no file {path}", file=path.name) from error
    except PermissionError as error:
        raise AccessDenied(f"{path} may not be read by this user; change its mode or owner", file=path.name) from error


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise AccessDenied(f"{path} may not be written by this user; change its mode or owner") from error
