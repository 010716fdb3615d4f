"""The fetch init container: brings the version that a pod is told to serve into a folder, and says what it brought.

Its message is the proof of what the pod was given, so it is written for failures too. It ends with exactly the files of
the version in the folder: those of another version that lie there are removed, valid ones are kept.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from skill_contract.manifest import FetchMessage, Manifest, VersionRef
from skill_store import layout
from skill_store.errors import (
    AccessDenied,
    AdapterRefused,
    BaseMismatch,
    BucketMissing,
    DigestMismatch,
    NoSpace,
    NotFound,
    StoreError,
)
from skill_store.landing import PARTIAL, finished_name
from skill_store.node_cache import NodeCache
from skill_store.repository import Repository

POLL_SECONDS = 2.0
SAY_SECONDS = 10.0
_MESSAGE_CHARACTERS = 2000

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Cache:
    """Where files are kept on the node for other pods, and how many bytes of them; None: as the volume has room."""

    folder: Path
    limit_bytes: int | None = None


def fetch(
    to: Path, weights: str, default: str, cache: Cache | None = None, *, named: str | None = None
) -> FetchMessage:
    """Returns the message about a version now in the folder, as a plain Hugging Face directory with its `.skill`.

    `weights` (`<repository>/versions/<version>@<digest>`) is taken where it is not empty, else `default` (a repository,
    for its head, or a version). Waits as long as there is neither.

    Args:
        named: what the pod calls the version, as in its paths; None where it has no name for it.

    Raises:
        StoreError: when the version cannot be had, or is called otherwise; the folder then holds no manifest: it cannot
            pass for a version.
    """
    started = time.monotonic()
    repository, ref = _wanted(weights, default)
    _require_name(ref.version if weights else "", named)
    _log.info("fetching %s into %s", layout.version_uri(repository.uri, ref), to)
    manifest = repository.manifest(ref)
    node = NodeCache(cache.folder, cache.limit_bytes, manifest.files) if cache else None
    try:
        make_room(to, manifest, node)
        repository.download(ref, to, _saying(), node)
    except OSError as error:
        raise StoreError(f"{to} cannot be written: {error}; mount a volume there that this user may write") from error
    size = sum(file.size for file in manifest.files)
    seconds = time.monotonic() - started
    _log.info("fetched %s: %.2f GB in %.1f s", ref.version, size / 1e9, seconds)
    return FetchMessage(
        outcome="Fetched",
        uri=f"{repository.uri}/{layout.version_folder(ref.version)}".rstrip("/"),
        version=ref.version,
        digest=ref.digest,
        size_bytes=size,
        seconds=round(seconds, 3),
    )


def failure(error: StoreError, weights: str, default: str = "") -> FetchMessage:
    """Returns the message about a fetch that failed."""
    uri, _, digest = (weights or default).partition("@")
    return FetchMessage(
        outcome="Failed",
        reason=_reason(error),
        message=error.message[:_MESSAGE_CHARACTERS],
        uri=uri[: _MESSAGE_CHARACTERS // 4],
        digest=digest[:80],
        file=error.file[: _MESSAGE_CHARACTERS // 4],
    )


def _reason(error: StoreError) -> str:
    if isinstance(error, NotFound | BucketMissing):
        return NotFound.reason
    final = (DigestMismatch, NoSpace, AccessDenied, BaseMismatch, AdapterRefused)
    return error.reason if isinstance(error, final) else "FetchFailed"


def _wanted(weights: str, default: str) -> tuple[Repository, VersionRef]:
    if weights:
        place = layout.Location.parse(weights)
        if not place.digest:
            raise StoreError(
                f"{weights!r}: the annotation must pin weights, as <repository>/versions/<version>@sha256:<digest>"
            )
        return Repository(place.repository), VersionRef(version=place.version, digest=place.digest)
    if not default:
        _wait_for(lambda: None, "this pod has no annotation with weights, and SKILL_DEFAULT names no repository")
    place = layout.Location.parse(default)
    repository = Repository(place.repository)
    if not place.version:
        return repository, _wait_for(repository.head, f"{repository.uri} has no head yet: nothing was imported").ref
    if place.digest:
        return repository, VersionRef(version=place.version, digest=place.digest)
    return repository, repository.resolve(place.version)


def _require_name(told: str, named: str | None) -> None:
    """Two versions under one name would share what goes by the name, such as an engine's stored keys and values."""
    if named is not None and named != told:
        raise StoreError(
            f"the pod calls its version {named!r} (SKILL_VERSION) and is told {told!r}: somebody changed one of the "
            "annotations sdft.dev/weights and sdft.dev/version: change both, or neither"
        )


def _wait_for(look: Callable[[], _T | None], why: str) -> _T:
    """Returns what `look` finds once it is not None; says every ten seconds that it waits, and why."""
    said = float("-inf")
    while (found := look()) is None:
        if time.monotonic() - said >= SAY_SECONDS:
            _log.info("waiting: %s", why)
            said = time.monotonic()
        time.sleep(POLL_SECONDS)
    return found


def make_room(folder: Path, manifest: Manifest, cache: NodeCache | None = None) -> None:
    """Removes from a folder what cannot be part of the version, and makes sure that the rest fits.

    What an earlier attempt has brought of one of its files stays.

    Raises:
        StoreError: when the folder holds files that no fetch has put there: they may be somebody's.
        NoSpace: when the volume is too small.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / layout.MANIFEST).unlink(missing_ok=True)
    present = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    ours = folder / ".skill"
    if present and not ours.is_dir():
        raise StoreError(f"{folder} holds {present[0].name} and more that no fetch has put there; name an empty folder")
    ours.mkdir(exist_ok=True)
    sizes = {file.path: file.size for file in manifest.files}
    for path in present:
        name = path.relative_to(folder).as_posix()
        is_landing = finished_name(name) in sizes and name not in sizes and not (folder / finished_name(name)).exists()
        if path.is_symlink() or not (is_landing or sizes.get(name) == path.stat().st_size):
            path.unlink()
    for path in sorted((path for path in folder.rglob("*") if path.is_dir() and path != ours), reverse=True):
        with contextlib.suppress(OSError):  # not empty, or the file system's own
            path.rmdir()
    _check_space(folder, manifest, cache)


def _check_space(folder: Path, manifest: Manifest, cache: NodeCache | None) -> None:
    # What is still there has the right size; if its bytes are wrong, the transfer says so when it does not fit.
    missing = [file for file in manifest.files if not (folder / file.path).is_file()]
    needed = sum(file.size - _landed(folder / f"{file.path}{PARTIAL}") for file in missing)
    if cache:
        cache.make_way(folder, needed)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace(
            f"{folder} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are needed; give the volume more room"
        )


def _landed(partial: Path) -> int:
    """Returns how many bytes of a file that is still landing have a place on the disk already."""
    return partial.stat().st_blocks * 512 if partial.is_file() else 0


def _saying() -> Callable[[int, int], None]:
    """Returns a progress callback that says every ten seconds how far the download is."""
    said = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said
        if time.monotonic() - said >= SAY_SECONDS:
            _log.info("%.2f of %.2f GB", done / 1e9, total / 1e9)
            said = time.monotonic()

    return say
