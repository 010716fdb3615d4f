"""Where things lie in a model repository, and how a version is written in one line. Pure: no I/O.

Keys are relative to the repository's URI. Everything under `versions/` is written once.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from skill_contract.manifest import DIGEST_PATTERN, VERSION_PATTERN, File, VersionRef
from skill_store.errors import StoreError
from skill_store.landing import finished_name

HEAD = "head.json"
MANIFEST = ".skill/manifest.json"
"""Relative to a version's or a checkpoint's folder; written last, so that it proves that the rest is there."""
GOLDEN = ".skill/golden.json"
SUITES = ".skill/suites/"
PROBES = ".probe/"
VERSIONS = "versions/"
RUNS = "runs/"

_VERSION = re.compile(VERSION_PATTERN)
_DIGEST = re.compile(DIGEST_PATTERN)
_CHECKPOINT = re.compile(r"step-([0-9]{6,18})/")


def version_folder(version: str) -> str:
    """Returns `versions/<version>/`. The slash at the end keeps a version apart from one whose name is longer.

    Raises:
        StoreError: for what cannot be the name of a folder.
    """
    if "/" in version or checked_path(version) != version:
        raise StoreError(f"{version!r:.80} is no version; it must look like 000042-3f9c1a7be012")
    return f"{VERSIONS}{version}/"


def run_folder(update_uid: str) -> str:
    """Returns `runs/<uid>/`: checkpoints and small files of one update."""
    return f"{RUNS}{checked_path(update_uid)}/"


def checkpoint_folder(update_uid: str, step: int) -> str:
    """Returns `runs/<uid>/step-000050/`."""
    return f"{run_folder(update_uid)}step-{step:06d}/"


def checkpoint_step(update_uid: str, key: str) -> int | None:
    """Returns the step of the checkpoint that a key belongs to, or None for any other file of the run."""
    match = _CHECKPOINT.match(key.removeprefix(run_folder(update_uid)))
    return int(match[1]) if match else None


def checked_path(path: str) -> str:
    """Returns a path from a manifest after making sure that it stays inside its folder.

    Raises:
        StoreError: when the path is absolute, empty, not normal, or climbs out with `..`.
    """
    parts = PurePosixPath(path).parts
    if not parts or path != "/".join(parts) or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise StoreError(
            f"{path!r:.200} is not a plain relative path; a manifest may name files of its own folder only", file=path
        )
    return path


def check_files(files: Sequence[File], place: str) -> None:
    """Makes sure that files can lie in one folder, beside each other.

    Raises:
        StoreError: when a path leads out of the folder, stands twice, is another's folder, or what a landing needs.
    """
    paths = {checked_path(file.path) for file in files}
    folders = {parent.as_posix() for path in paths for parent in PurePosixPath(path).parents}
    for path in paths:
        if path in folders or path == MANIFEST or finished_name(path) != path:
            raise StoreError(f"{place} names {path!r:.80} as a file, where something else has to lie", file=path)
    if len(paths) < len(files):
        raise StoreError(f"{place} names a file twice", file=MANIFEST)


@dataclass(frozen=True)
class Location:
    """A repository, or one version of it: what SKILL_WEIGHTS and SKILL_DEFAULT hold."""

    repository: str
    version: str = ""
    """Empty: the head."""
    digest: str = ""
    """Empty: whatever the version's manifest is."""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Returns what `<repository>[/versions/<version>[@sha256:<digest>]]` means.

        Raises:
            StoreError: when the version or the digest is malformed, or there is a digest without a version.
        """
        uri, _, digest = text.strip().partition("@sha256:")
        digest = digest and f"sha256:{digest}"
        repository, found, version = uri.rstrip("/").rpartition("/versions/")
        if not found:
            repository, version = uri.rstrip("/"), ""
        if found and not _VERSION.fullmatch(version):
            raise StoreError(f"{text!r:.200}: {version!r:.80} is no version; it must look like 000042-3f9c1a7be012")
        if digest and not (version and _DIGEST.fullmatch(digest)):
            raise StoreError(
                f"{text!r:.200}: after @ there must be sha256: and 64 hexadecimal digits of the version's manifest"
            )
        return cls(repository=repository, version=version, digest=digest)


def version_uri(repository: str, ref: VersionRef) -> str:
    """Returns `<repository>/versions/<version>@<digest>`: the value of the pods' annotation."""
    return f"{repository.rstrip('/')}/{version_folder(ref.version).rstrip('/')}@{ref.digest}"
