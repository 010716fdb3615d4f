"""Which versions may go, and how they go while others publish, promote and fetch.

What stays is decided by `rule`, which is pure; it is asked twice. A version is condemned first: a tombstone takes the
place of its manifest, by compare-and-swap, and nothing of it is deleted yet. Then the repository is read again: what
has become somebody's meanwhile gets its manifest back. Only then files go. A removal that dies in its middle leaves
tombstones, and the next one finishes it.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from skill_store import layout
from skill_store.catalogue import Catalogue, RunFolder, VersionFolder
from skill_store.errors import PreconditionFailed, StoreError, StoreUnavailable
from skill_store.objects import open_store
from skill_store.protocol import ObjectStore
from skill_store.tombstone import Tombstone

LEAST = 2
"""Versions that stay at least: the head, and the one before it, to which a rollback goes."""
GRACE_SECONDS = 24 * 3600.0
RUN_GRACE_SECONDS = 14 * 24 * 3600.0
DELETE_SECONDS = 600.0
"""How long after it was condemned a version's files are deleted; later only by another removal."""
ABANDONED_SECONDS = 3600.0
"""When a removal that has not said that it is done has died: far more than DELETE_SECONDS, for clocks that differ."""

Kind = Literal["version", "upload", "checkpoints", "probe"]


@dataclass(frozen=True, slots=True)
class Policy:
    """What stays. Without `keep` all versions do, and only what nobody finished goes."""

    keep: int = 0
    """The newest so many of the lineage stay, the head among them; 0: all versions."""
    in_use: frozenset[str] = frozenset()
    """Versions that somebody serves, or has named as the one to go back to."""
    updates: frozenset[str] = frozenset()
    """Uids of updates that are there: their runs stay."""
    grace_seconds: float = GRACE_SECONDS
    """What was written less than so long ago stays, whatever it is: somebody may be at work on it."""
    run_grace_seconds: float = RUN_GRACE_SECONDS
    """The same for checkpoints: an update that is suspended writes none."""

    def __post_init__(self) -> None:
        if self.keep and self.keep < LEAST:
            raise StoreError(
                f"keeping {self.keep} versions would leave none to go back to; keep {LEAST} or more, or 0 for all"
            )


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of one thing, and why."""

    kind: Kind
    name: str
    size: int
    stays: bool
    why: str


@dataclass(frozen=True, slots=True)
class Removal:
    """What a removal did, or, as a rehearsal, what it would have done."""

    rulings: tuple[Ruling, ...]
    removed: tuple[Ruling, ...] = ()
    spared: tuple[Ruling, ...] = ()
    """Condemned at first, and then left, because something had changed in between."""


def rule(catalogue: Catalogue, policy: Policy, now: float) -> tuple[Ruling, ...]:
    """Returns what stays and what goes of everything in a repository.

    Raises:
        StoreError: where a manifest cannot be read: what hangs on it is not known, so nothing may go.
    """
    damaged = next((version for version in catalogue.versions.values() if version.damage), None)
    if damaged:
        raise StoreError(f"nothing is removed while a manifest is damaged: {damaged.damage}")
    why_kept = _kept_by_name(catalogue, policy, now)
    rulings = [
        *(_of_version(version, why_kept, policy, now) for version in catalogue.versions.values() if _is_there(version)),
        *(_of_run(run, policy, now) for run in catalogue.runs if run.checkpoints),
    ]
    for probe in catalogue.probes:
        young = now - probe.modified < policy.grace_seconds
        rulings.append(Ruling("probe", probe.key, probe.size, young, "is left of a test of the store"))
    return tuple(rulings)


def _is_there(version: VersionFolder) -> bool:
    return bool(version.files) or version.tombstone is None or not version.tombstone.done


def _is_upload(version: VersionFolder) -> bool:
    tombstone = version.tombstone
    return version.manifest is None or (tombstone is not None and (tombstone.done or tombstone.again))


def _kept_by_name(catalogue: Catalogue, policy: Policy, now: float) -> dict[str, str]:
    """Returns why versions stay, by their names."""
    lineage = catalogue.lineage
    kept: dict[str, str] = {}
    for version in catalogue.versions.values():
        if version.manifest and (not policy.keep or not lineage):
            kept[version.name] = "all versions stay" if lineage else "there is no head to tell what is old"
        elif version.manifest and version.manifest.sequence < _oldest(lineage):
            kept[version.name] = f"the lineage is broken at {lineage[-1].name}: what came before it is not known"
    for run in catalogue.runs:
        if run.parent and not run.has_result and (run.uid in policy.updates or not _is_old(run, policy, now)):
            kept[run.parent] = f"run {run.uid} trains from it"
    kept |= dict.fromkeys(policy.in_use, "is in use")
    if lineage:
        head = lineage[0]
        kept |= {
            child.name: "could be promoted: its parent is the head" for child in catalogue.children.get(head.name, ())
        }
        kept |= {version.name: "is the base" for version in lineage[-1:] if not _oldest(lineage)}
        kept |= {version.name: f"is one of the newest {policy.keep}" for version in lineage[: policy.keep]}
        kept[head.name] = "is the head"
    return kept


def _oldest(lineage: tuple[VersionFolder, ...]) -> int:
    manifest = lineage[-1].manifest if lineage else None
    return manifest.sequence if manifest and manifest.parent else 0


def _of_version(version: VersionFolder, why_kept: dict[str, str], policy: Policy, now: float) -> Ruling:
    kind: Kind = "upload" if _is_upload(version) else "version"
    if kind == "version" and version.tombstone and not version.is_whole:
        return Ruling(kind, version.name, version.size, False, "was half removed by a removal that died")
    if kind == "version" and version.name in why_kept:
        return Ruling(kind, version.name, version.size, True, why_kept[version.name])
    if now - version.touched < policy.grace_seconds:
        return Ruling(kind, version.name, version.size, True, "was written a short time ago")
    why = "is older than what is kept" if kind == "version" else "was never completed"
    return Ruling(kind, version.name, version.size, False, why)


def _of_run(run: RunFolder, policy: Policy, now: float) -> Ruling:
    if run.has_result:
        young = now - run.touched < policy.grace_seconds
        return Ruling(
            "checkpoints", run.uid, run.size, young, "the run has its result" if not young else "ended lately"
        )
    if run.uid in policy.updates:
        return Ruling("checkpoints", run.uid, run.size, True, "its update is there")
    old = _is_old(run, policy, now)
    return Ruling("checkpoints", run.uid, run.size, not old, "the run was abandoned" if old else "the run may go on")


def _is_old(run: RunFolder, policy: Policy, now: float) -> bool:
    return now - run.touched >= policy.run_grace_seconds


def rehearse(uri: str, policy: Policy) -> Removal:
    """Returns what `remove` would do now. Reads only."""
    return Removal(rule(Catalogue.read(uri), policy, time.time()))


def remove(uri: str, policy: Policy) -> Removal:
    """Removes what may go, and returns what it did. Safe beside publishers, promotions and other removals.

    Raises:
        StoreError: where a manifest is damaged, or the store fails; what was condemned is then given back if possible.
    """
    store = open_store(uri)
    first = Catalogue.read(uri)
    rulings = rule(first, policy, time.time())
    graves = [
        grave
        for each in rulings
        # What stays and is condemned was so by a removal that died: it is taken over, and given back below.
        if (version := first.versions.get(each.name)) and (not each.stays or version.is_condemned)
        if (grave := _condemn(store, version, each))
    ]
    begun = time.monotonic()
    try:
        second = Catalogue.read(uri)
        again = {each.name: each for each in rule(second, policy, time.time())}
    except StoreError:
        for grave in graves:
            with contextlib.suppress(StoreError):
                grave.revive(store)
        raise
    removed, spared = [], []
    for grave in graves:
        if again[grave.ruling.name].stays:
            grave.revive(store)
            spared.append(again[grave.ruling.name])
        else:
            grave.bury(store, list(second.versions[grave.ruling.name].files), begun)
            removed.append(grave.ruling)
    for run in second.runs:
        if run.checkpoints and not again[run.uid].stays:
            store.delete(run.checkpoints)
            removed.append(again[run.uid])
    for probe in second.probes:
        if not again[probe.key].stays:
            store.delete([probe.key])
            removed.append(again[probe.key])
    return Removal(rulings, tuple(removed), tuple(spared))


@dataclass(frozen=True, slots=True)
class _Grave:
    """A condemned folder: its tombstone stands, its files are still there."""

    ruling: Ruling
    key: str
    tombstone: Tombstone
    etag: str

    def revive(self, store: ObjectStore) -> None:
        """Gives a version its manifest back, or an upload its folder."""
        is_version = self.tombstone.manifest and not self.tombstone.again
        data = self.tombstone.manifest.encode() if is_version else self._done()
        with contextlib.suppress(PreconditionFailed):  # an answer that was lost: it has been written
            store.put(self.key, data, if_match=self.etag)

    def bury(self, store: ObjectStore, files: Sequence[str], begun: float) -> None:
        """Deletes the files, then says so.

        Raises:
            StoreUnavailable: when it takes so long that another removal might take this one for dead.
        """
        for start in range(0, len(files), 1000):
            if time.monotonic() - begun > DELETE_SECONDS:
                raise StoreUnavailable(
                    f"the removal of {self.ruling.name} took more than {DELETE_SECONDS:.0f} s; the next one, in"
                    f" {ABANDONED_SECONDS / 60:.0f} min at the earliest, goes on with it"
                )
            store.delete(files[start : start + 1000])
        with contextlib.suppress(PreconditionFailed):
            store.put(self.key, self._done(), if_match=self.etag)

    def _done(self) -> bytes:
        return self.tombstone.model_copy(update={"done": True}).encode()


def _condemn(store: ObjectStore, version: VersionFolder, ruling: Ruling) -> _Grave | None:
    """Returns the grave, or None where somebody was faster, or is at it."""
    if version.is_condemned and time.time() - version.marked < ABANDONED_SECONDS:
        return None
    key = layout.version_folder(version.name) + layout.MANIFEST
    manifest = version.text
    tombstone = Tombstone(
        removed=datetime.now(UTC).isoformat(timespec="seconds"),
        by=secrets.token_hex(8),
        why=ruling.why,
        again=ruling.kind == "upload" and bool(manifest),
        manifest=manifest,
    )
    try:
        etag = store.put(key, tombstone.encode(), if_absent=not version.etag, if_match=version.etag or None)
    except PreconditionFailed:
        return None
    return _Grave(ruling, key, tombstone, etag)
