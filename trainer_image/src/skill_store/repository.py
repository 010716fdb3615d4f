"""Versions of one model and the head that names the current one.

Two rules carry everything: a version's folder is named by the hash of its manifest, which is written last; the head
moves by compare-and-swap only. So a crash leaves nothing that could be taken for a version, and no update is lost to
a faster one.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from pydantic import Field

from skill_contract.manifest import (
    DIGEST_PATTERN,
    VERSION_PATTERN,
    File,
    Manifest,
    VersionRef,
    digest_of,
    version_name,
)
from skill_contract.model import ContractError, Document
from skill_contract.step import UpdateIdentity
from skill_store import layout, transfer
from skill_store.base import BaseModelFiles
from skill_store.download import download
from skill_store.errors import (
    BeingRemoved,
    DigestMismatch,
    HeadMoved,
    ModelInvalid,
    NotFound,
    PreconditionFailed,
    StoreError,
    VersionMissing,
)
from skill_store.landing import PARTIAL, finished_name
from skill_store.node_cache import NodeCache
from skill_store.objects import Stored, open_store
from skill_store.probe import check_conditional_writes
from skill_store.runs import Run
from skill_store.tombstone import Tombstone
from skill_store.transfer import Progress

_log = logging.getLogger(__name__)


class Head(Document):
    """`head.json`: the version that is current, and how it became so."""

    version: str = Field(pattern=f"^{VERSION_PATTERN}$")
    digest: str = Field(pattern=f"^{DIGEST_PATTERN}$")
    parent: VersionRef | None = None
    """The version that this one was trained from."""
    update: UpdateIdentity | None = None
    """Who moved the head; None for an import or a hand."""
    time: str = ""
    """RFC 3339, UTC."""
    etag: str = Field(default="", exclude=True)
    """What the next move compares; not part of the file."""

    @property
    def ref(self) -> VersionRef:
        """Returns the version alone."""
        return VersionRef(version=self.version, digest=self.digest)


class Repository:
    """The model repository at one URI. Holds no state of its own: every call asks the store."""

    def __init__(self, uri: str) -> None:
        self._store = open_store(uri)
        self.uri = self._store.uri

    def head(self) -> Head | None:
        """Returns the current version, or None where the repository is empty."""
        try:
            stored = self._store.get(layout.HEAD)
        except NotFound:
            return None
        try:
            return Head.parse_json(stored.data).model_copy(update={"etag": stored.etag})
        except ContractError as error:
            raise DigestMismatch(f"{self.uri}/{layout.HEAD} is damaged: {error}", file=layout.HEAD) from error

    def move_head(self, to: VersionRef, *, expected: Head | None, update: UpdateIdentity | None = None) -> Head:
        """Makes a version the current one, if the head still is `expected`, and returns the new head.

        A head that is at `to` already is success, so that a repeated call does no harm.

        Raises:
            HeadMoved: when the head is neither.
            VersionMissing, DigestMismatch: when `to` is no version: the head never names one that is not there. Where
                retention was faster by a hair, it is moved back.
        """
        parent = self.manifest(to).parent
        if expected and expected.ref == to:
            return self._head_at(to, expected)
        time = datetime.now(UTC).isoformat(timespec="seconds")
        head = Head(version=to.version, digest=to.digest, parent=parent, update=update, time=time)
        data = head.dump_json().encode()
        try:
            etag = self._store.put(
                layout.HEAD, data, if_absent=expected is None, if_match=expected.etag if expected else None
            )
        except PreconditionFailed:
            return self._head_at(to, expected)
        moved = head.model_copy(update={"etag": etag})
        self._look_again(moved, expected)
        return moved

    def _look_again(self, moved: Head, expected: Head | None) -> None:
        """Of a removal and a promotion at the same instant each looks again after its own write: one sees the other."""
        try:
            self.manifest(moved.ref)
        except VersionMissing:
            if expected:
                with contextlib.suppress(PreconditionFailed):
                    self._store.put(layout.HEAD, expected.dump_json().encode(), if_match=moved.etag)
            raise

    def _head_at(self, to: VersionRef, expected: Head | None) -> Head:
        found = self.head()
        if found and found.ref == to:
            return found
        now = f"{found.version}, moved by {_who(found)}" if found else "gone"
        was = expected.version if expected else "none"
        raise HeadMoved(
            f"{self.uri}: the head was {was} and is {now}; train again from the new head to keep both skills"
        )

    def resolve(self, version: str) -> VersionRef:
        """Returns a version's full reference by its name alone; raises VersionMissing, DigestMismatch."""
        ref = VersionRef(version=version, digest=digest_of(self._manifest_bytes(version)))
        self.manifest(ref)
        return ref

    def manifest(self, ref: VersionRef) -> Manifest:
        """Returns a version's manifest, its sha256 verified against the reference, its file paths checked.

        Raises:
            VersionMissing: when there is none.
            DigestMismatch: when it is another one than the reference says.
        """
        return parse_manifest(self.uri, ref, self._manifest_bytes(ref.version))

    def record(self, ref: VersionRef) -> tuple[Manifest, Tombstone | None]:
        """Returns a version's manifest also where retention has taken the version away, then with its tombstone.

        Raises as `manifest` does for everything else.
        """
        data = self._stored_manifest(ref.version).data
        tombstone = Tombstone.of(data, self._manifest_place(ref.version))
        if tombstone and not tombstone.manifest:
            raise VersionMissing(f"{self.uri}: the upload of {ref.version} was never completed", file=layout.MANIFEST)
        return parse_manifest(self.uri, ref, tombstone.manifest.encode() if tombstone else data), tombstone

    def _manifest_bytes(self, version: str) -> bytes:
        data = self._stored_manifest(version).data
        if tombstone := Tombstone.of(data, self._manifest_place(version)):
            raise VersionMissing(
                f"{self.uri}: version {version} was removed on {tombstone.removed} ({tombstone.why}); see which there"
                f" are with: skill-store ls {self.uri}",
                file=layout.MANIFEST,
            )
        return data

    def _manifest_place(self, version: str) -> str:
        return f"{self.uri}/{layout.version_folder(version)}{layout.MANIFEST}"

    def _stored_manifest(self, version: str) -> Stored:
        try:
            return self._store.get(layout.version_folder(version) + layout.MANIFEST)
        except NotFound as error:
            raise VersionMissing(
                f"{self.uri} has no version {version}: there is no manifest", file=layout.MANIFEST
            ) from error

    def download(
        self, ref: VersionRef, folder: Path, progress: Progress | None = None, cache: NodeCache | None = None
    ) -> Manifest:
        """Downloads a version's files, verified while landing, and returns its manifest, which is written last.

        The folder then is a plain Hugging Face directory; other files in it stay.
        """
        manifest = self.manifest(ref)
        download(self._store, layout.version_folder(ref.version), folder, manifest.files, progress, cache=cache)
        target = folder / layout.MANIFEST
        target.parent.mkdir(parents=True, exist_ok=True)
        arriving = target.with_name(target.name + PARTIAL)
        arriving.write_bytes(self._manifest_bytes(ref.version))
        arriving.replace(target)
        return manifest

    def download_part(self, ref: VersionRef, part: str, folder: Path) -> int:
        """Downloads one folder of a version (`part`, with its slash), verified; returns the bytes of its files."""
        files = [file for file in self.manifest(ref).files if file.path.startswith(part)]
        inner = [file.model_copy(update={"path": file.path.removeprefix(part)}) for file in files]
        download(self._store, layout.version_folder(ref.version) + part, folder, inner)
        return sum(file.size for file in files)

    def verify(self, ref: VersionRef, progress: Progress | None = None) -> Manifest:
        """Reads every byte of a version and returns its manifest; raises DigestMismatch, NotFound."""
        manifest = self.manifest(ref)
        transfer.verify(self._store, layout.version_folder(ref.version), manifest.files, progress)
        return manifest

    def read(self, ref: VersionRef, path: str) -> bytes:
        """Returns one small file of a version, verified; raises NotFound where the manifest does not name it."""
        file = next((file for file in self.manifest(ref).files if file.path == path), None)
        if file is None:
            raise NotFound(f"{self.uri}: version {ref.version} has no file {path}", file=path)
        return self._read(ref, file)

    def _read(self, ref: VersionRef, file: File) -> bytes:
        data = self._store.get(layout.version_folder(ref.version) + file.path).data
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise DigestMismatch(f"{self.uri}: {file.path} of version {ref.version} is damaged", file=file.path)
        return data

    def suites(self, ref: VersionRef) -> dict[str, bytes]:
        """Returns the held-out suites of all skills accepted so far: name of the skill to its JSON Lines."""
        suites = [file for file in self.manifest(ref).files if file.path.startswith(layout.SUITES)]
        return {PurePosixPath(file.path).stem: self._read(ref, file) for file in suites}

    def publish(self, folder: Path, manifest: Manifest, progress: Progress | None = None) -> VersionRef:
        """Makes a folder a version and returns its reference; the head stays where it is.

        `manifest.files` is filled in from the folder. Publishing the same content again returns the same reference and
        writes nothing.

        Raises:
            ModelInvalid: when a file is empty (some readers of the layout skip empty objects).
        """
        return self._publish(folder, _paths(folder), manifest, progress)

    def _publish(self, folder: Path, paths: Sequence[str], manifest: Manifest, progress: Progress | None) -> VersionRef:
        files = transfer.hash_files(folder, paths)
        for file in files:
            if file.size == 0:
                raise ModelInvalid(
                    f"{folder / file.path} is empty; remove it, or publish what should be in it", file=file.path
                )
        data = manifest.model_copy(update={"files": files}).encode()
        ref = VersionRef(version=version_name(manifest.sequence, digest_of(data)), digest=digest_of(data))
        self._place(folder, files, ref, data, progress)
        return ref

    def _place(
        self, folder: Path, files: Sequence[File], ref: VersionRef, data: bytes, progress: Progress | None
    ) -> None:
        try:
            there = self._stored_manifest(ref.version)
        except VersionMissing:
            there = None
        tombstone = Tombstone.of(there.data, self._manifest_place(ref.version)) if there else None
        if there and not tombstone:
            parse_manifest(self.uri, ref, there.data)  # fine if it is the same, DigestMismatch if not
            return
        if tombstone and not tombstone.done:
            raise _being_removed(self.uri, ref)
        self._send(folder, files, ref, progress)
        self._seal(ref, data, there.etag if there else None)

    def _send(self, folder: Path, files: Sequence[File], ref: VersionRef, progress: Progress | None) -> None:
        # The folder's name depends on the hash of every file: what a broken attempt left there is of these very files.
        prefix = layout.version_folder(ref.version)
        there = {entry.key: entry.size for entry in self._store.list(prefix)}
        missing = [file for file in files if there.get(prefix + file.path) != file.size]
        transfer.upload(self._store, prefix, folder, missing, progress)
        arrived = {entry.key: entry.size for entry in self._store.list(prefix)}
        for file in files:
            if arrived.get(prefix + file.path) != file.size:
                size = arrived.get(prefix + file.path, 0)
                raise StoreError(
                    f"{self.uri}/{prefix}{file.path} has {size} bytes after an upload of {file.size}", file=file.path
                )

    def _seal(self, ref: VersionRef, data: bytes, over: str | None) -> None:
        """Writes the manifest: where there is nothing, or over the tombstone with the etag `over`."""
        key = layout.version_folder(ref.version) + layout.MANIFEST
        try:
            self._store.put(key, data, if_absent=over is None, if_match=over)
        except PreconditionFailed:
            try:
                self.manifest(ref)  # somebody else, or our own lost answer: fine if it is the same
            except VersionMissing as error:
                raise _being_removed(self.uri, ref) from error

    def import_base(
        self, base_uri: str, *, scratch: Path | None = None, progress: Progress | None = None
    ) -> VersionRef:
        """Makes a Hugging Face folder version 000000 and head of an empty repository; returns the head's version.

        A repository that has a head is left as it is. `scratch` is where a base from S3 is kept meanwhile (default: the
        system's temporary folder). Two imports at once end with one version and one head.

        Raises:
            ModelInvalid: when the folder has no safetensors weights or no config.json.
        """
        head = self.head()
        if head:
            _log.info(
                "%s has a head already and is left as it is; another model needs a repository of its own", self.uri
            )
            return head.ref
        with BaseModelFiles.open(base_uri, scratch=scratch) as base:
            _log.info("importing %s into %s: %d files", base_uri, self.uri, len(base.paths))
            ref = self._publish(base.folder, base.paths, Manifest(files=(), sequence=0, base=base_uri), progress)
        try:
            return self.move_head(ref, expected=None).ref
        except HeadMoved:
            head = self.head()
            if head is None:
                raise
            return head.ref

    def lineage(self) -> Iterator[tuple[VersionRef, Manifest]]:
        """Yields the head's version and its ancestors, newest first, without those that retention has removed.

        Ends early at one that is gone without a trace.
        """
        head = self.head()
        ref = head.ref if head else None
        while ref:
            try:
                manifest, tombstone = self.record(ref)
            except VersionMissing:
                _log.warning("%s: the lineage ends at %s, which is gone", self.uri, ref.version)
                return
            if tombstone is None:
                yield ref, manifest
            ref = manifest.parent

    def check_conditional_writes(self) -> None:
        """Raises StoreUnfit where the store ignores If-None-Match or If-Match, found out by writes below `.probe/`."""
        check_conditional_writes(self._store)

    def run(self, update_uid: str) -> Run:
        """Returns the folder of one update's run."""
        return Run(self._store, update_uid)


def parse_manifest(uri: str, ref: VersionRef, data: bytes) -> Manifest:
    """Returns the manifest of a version of the repository at `uri`, after every check that needs no more than it.

    Raises:
        DigestMismatch: when it is not the one that the reference names, or cannot be read.
        StoreError: when a file's path leads out of the version's folder.
    """
    place = f"{uri}/{layout.version_folder(ref.version)}{layout.MANIFEST}"
    if digest_of(data) != ref.digest:
        raise DigestMismatch(f"{place} has digest {digest_of(data)} and not {ref.digest}", file=layout.MANIFEST)
    try:
        manifest = Manifest.parse_json(data)
    except ContractError as error:
        raise DigestMismatch(
            f"{place} cannot be read by this version of skillupdate: {error}", file=layout.MANIFEST
        ) from error
    if version_name(manifest.sequence, ref.digest) != ref.version:
        raise DigestMismatch(f"{place} belongs to {version_name(manifest.sequence, ref.digest)}", file=layout.MANIFEST)
    layout.check_files(manifest.files, place)
    return manifest


def _paths(folder: Path) -> list[str]:
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if path != layout.MANIFEST and finished_name(path) == path)


def _being_removed(uri: str, ref: VersionRef) -> BeingRemoved:
    return BeingRemoved(
        f"{uri}: retention is removing what is left of {ref.version}, older than its time of grace; publish again when"
        " it is done, in some minutes",
        file=layout.MANIFEST,
    )


def _who(head: Head) -> str:
    return f"{head.update.namespace}/{head.update.name}" if head.update else "an import or by hand"
