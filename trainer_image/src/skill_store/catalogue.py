"""All that a model repository holds, read once: versions, what is left of uploads and removals, runs, the head.

Only reads. What may go of it: `retention`; how it is shown to people: `listing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from skill_contract.manifest import Manifest, VersionRef, digest_of
from skill_contract.model import ContractError
from skill_store import layout
from skill_store.errors import NotFound, StoreError
from skill_store.objects import open_store
from skill_store.protocol import Entry, ObjectStore
from skill_store.repository import Head, Repository, parse_manifest
from skill_store.tombstone import Tombstone

READERS = 8
RESULT, ORIGIN = "result.json", "origin.json"
"""Files of a run: what it ended with, and what it began from."""


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """One folder below `versions/`, whatever it holds."""

    name: str
    ref: VersionRef | None
    """None for an upload that was never completed, or one whose manifest is damaged."""
    manifest: Manifest | None
    """Also of a version that retention has taken away."""
    text: str
    """The manifest to the byte."""
    tombstone: Tombstone | None
    damage: str
    """What is wrong with the manifest; empty where nothing is."""
    etag: str
    """Of what is in the manifest's place; empty where nothing is."""
    files: dict[str, int]
    """Key and size of everything but the manifest."""
    touched: float
    """When the newest of them, or the manifest, was written, Unix seconds; a tombstone's own time is not counted."""
    marked: float
    """When the tombstone was written; 0 where there is none."""

    @property
    def stands(self) -> bool:
        """True for a version that can be fetched."""
        return self.ref is not None and self.tombstone is None

    @property
    def is_condemned(self) -> bool:
        """True while a removal is at it, or after one has died at it."""
        return self.tombstone is not None and not self.tombstone.done

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(self.files.values())

    @property
    def is_whole(self) -> bool:
        """True where all files of the manifest are there, by their sizes."""
        folder = layout.version_folder(self.name)
        return self.manifest is not None and all(
            self.files.get(folder + file.path) == file.size for file in self.manifest.files
        )


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`runs/<uid>/`."""

    uid: str
    parent: str
    """The version that it trains from; empty where it has not said."""
    has_result: bool
    checkpoints: tuple[str, ...]
    """Keys, those of manifests first: a checkpoint that goes is none from the first moment on."""
    size: int
    """Bytes of the checkpoints."""
    touched: float


@dataclass(frozen=True)
class Catalogue:
    """A repository at one moment."""

    uri: str
    head: Head | None
    versions: dict[str, VersionFolder]
    runs: tuple[RunFolder, ...]
    probes: tuple[Entry, ...]
    """What `check_conditional_writes` left when it was killed."""

    @classmethod
    def read(cls, uri: str) -> Catalogue:
        """Returns what there is at a URI. Reads every manifest, and no weights."""
        store = open_store(uri)
        repository = Repository(uri)
        folders = _by_folder(store.list(layout.VERSIONS), layout.VERSIONS)
        runs = _by_folder(store.list(layout.RUNS), layout.RUNS)
        with ThreadPoolExecutor(READERS) as pool:
            versions = pool.map(lambda item: _version(store, *item), folders.items())
            return cls(
                uri=repository.uri,
                # After the listing: what the head names by now is there, or has been removed.
                head=repository.head(),
                versions={version.name: version for version in versions},
                runs=tuple(pool.map(lambda item: _run(store, *item), runs.items())),
                probes=tuple(store.list(layout.PROBES)),
            )

    @cached_property
    def lineage(self) -> tuple[VersionFolder, ...]:
        """The head's version and its ancestors, newest first, removed ones too.

        Ends at the base, or at one that is gone without a trace.
        """
        found: list[VersionFolder] = []
        ref = self.head.ref if self.head else None
        while ref and (version := self.versions.get(ref.version)) and version.ref == ref:
            found.append(version)
            ref = version.manifest.parent if version.manifest else None
        return tuple(found)

    @cached_property
    def children(self) -> dict[str, list[VersionFolder]]:
        """Versions by the name of their parent (`""` for a base), in the order of their names."""
        found: dict[str, list[VersionFolder]] = {}
        for version in sorted(self.versions.values(), key=lambda version: version.name):
            if version.manifest:
                parent = version.manifest.parent
                found.setdefault(parent.version if parent else "", []).append(version)
        return found

    def find(self, text: str) -> VersionFolder:
        """Returns the version that somebody names: `head`, `head~2`, a version, or the beginning of one or of a digest.

        Raises:
            NotFound: where it fits none, or several.
        """
        name, _, steps = text.partition("~")
        if name == "head":
            back = int(steps) if steps.isdecimal() else 0
            if back < len(self.lineage):
                return self.lineage[back]
            raise NotFound(f"{self.uri}: there is no {text}: the lineage has {len(self.lineage)} versions")
        fitting = [version for version in self.versions.values() if version.manifest and _fits(version, text)]
        if len(fitting) == 1:
            return fitting[0]
        names = ", ".join(sorted(version.name for version in fitting or self.versions.values())[:8])
        what = "fits several" if fitting else "is none of"
        raise NotFound(
            f"{self.uri}: {text!r} {what}: {names or 'it has no versions'}; write head, head~1, or more of one"
        )


def _fits(version: VersionFolder, text: str) -> bool:
    sequence, _, digest = version.name.partition("-")
    wanted = text.removeprefix("sha256:")
    if wanted.isdecimal() and len(wanted) <= len(sequence):
        return int(wanted) == int(sequence)
    full = version.ref.digest.removeprefix("sha256:") if version.ref else digest
    return version.name.startswith(text) or (len(wanted) >= 4 and full.startswith(wanted))


def _by_folder(entries: Iterable[Entry], prefix: str) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        name, slash, _ = entry.key.removeprefix(prefix).partition("/")
        if slash and name not in {"", ".", ".."}:  # not ours, and never touched
            found.setdefault(name, []).append(entry)
    return found


def _version(store: ObjectStore, name: str, entries: list[Entry]) -> VersionFolder:
    key = layout.version_folder(name) + layout.MANIFEST
    files = [entry for entry in entries if entry.key != key]
    written = next((entry.modified for entry in entries if entry.key == key), 0.0)
    stood = _what_stands(store, name, key)
    times = [entry.modified for entry in files] + ([written] if stood.manifest and not stood.tombstone else [])
    return VersionFolder(
        name=name,
        ref=stood.ref,
        manifest=stood.manifest,
        text=stood.text,
        tombstone=stood.tombstone,
        damage=stood.damage,
        etag=stood.etag,
        files={entry.key: entry.size for entry in files},
        touched=max(times, default=0.0),
        marked=written if stood.tombstone else 0.0,
    )


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is in a manifest's place."""

    etag: str = ""
    ref: VersionRef | None = None
    manifest: Manifest | None = None
    text: str = ""
    tombstone: Tombstone | None = None
    damage: str = ""


def _what_stands(store: ObjectStore, name: str, key: str) -> _Standing:
    try:
        stored = store.get(key)
    except NotFound:
        return _Standing()
    try:
        tombstone = Tombstone.of(stored.data, f"{store.uri}/{key}")
        data = tombstone.manifest.encode() if tombstone else stored.data
        if not data:
            return _Standing(stored.etag, tombstone=tombstone)
        ref = VersionRef.parse({"version": name, "digest": digest_of(data)})
        return _Standing(stored.etag, ref, parse_manifest(store.uri, ref, data), data.decode(), tombstone)
    except (StoreError, ContractError) as error:
        return _Standing(stored.etag, damage=str(error))


def _run(store: ObjectStore, uid: str, entries: list[Entry]) -> RunFolder:
    folder = layout.run_folder(uid)
    checkpoints = [entry for entry in entries if layout.checkpoint_step(uid, entry.key) is not None]
    names = {entry.key.removeprefix(folder) for entry in entries}
    return RunFolder(
        uid=uid,
        parent=_parent(store, folder + ORIGIN) if ORIGIN in names else "",
        has_result=RESULT in names,
        checkpoints=tuple(
            entry.key for entry in sorted(checkpoints, key=lambda entry: not entry.key.endswith(layout.MANIFEST))
        ),
        size=sum(entry.size for entry in checkpoints),
        touched=max((entry.modified for entry in entries), default=0.0),
    )


def _parent(store: ObjectStore, key: str) -> str:
    try:
        return VersionRef.parse(json.loads(store.get(key).data)["parent"]).version
    except (NotFound, ValueError, TypeError, KeyError, RecursionError):  # gone since, or of a version not known here
        return ""
