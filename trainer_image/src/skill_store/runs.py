"""The folder of one update's run: checkpoints to resume from, and small files (result.json, metrics.jsonl, report).

A checkpoint is complete when its manifest is there: the manifest is the last thing written and the first removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from skill_contract.manifest import File
from skill_contract.model import ContractError, Document
from skill_store import layout, transfer
from skill_store.errors import DigestMismatch, NotFound, PreconditionFailed
from skill_store.protocol import ObjectStore
from skill_store.transfer import Progress


class CheckpointManifest(Document):
    """What a complete checkpoint consists of."""

    step: int
    files: tuple[File, ...]


class Run:
    """`runs/<uid>/` of a repository. A second trainer at work on it costs time, never a wrong checkpoint."""

    def __init__(self, store: ObjectStore, update_uid: str) -> None:
        self._store = store
        self._uid = update_uid
        self._folder = layout.run_folder(update_uid)

    def put(self, name: str, data: bytes) -> None:
        """Writes a small file of the run, over an older one of the same name."""
        self._store.put(self._folder + layout.checked_path(name), data)

    def keep(self, name: str, data: bytes) -> bytes:
        """Writes a small file of the run unless there is one of that name; returns what is there then."""
        key = self._folder + layout.checked_path(name)
        try:
            self._store.put(key, data, if_absent=True)
        except PreconditionFailed:
            return self._store.get(key).data
        return data

    def get(self, name: str) -> bytes | None:
        """Returns a small file of the run, or None where there is none."""
        try:
            return self._store.get(self._folder + layout.checked_path(name)).data
        except NotFound:
            return None

    def checkpoints(self) -> list[int]:
        """Returns the steps of all complete checkpoints, oldest first."""
        return sorted(step for step, keys in self._by_step().items() if self._manifest_key(step) in keys)

    def latest_checkpoint(self) -> int | None:
        """Returns the newest complete checkpoint's step, or None."""
        return max(self.checkpoints(), default=None)

    def save_checkpoint(self, step: int, folder: Path, keep: int, progress: Progress | None = None) -> None:
        """Uploads a folder as the checkpoint of a step and removes all but the newest `keep` complete ones.

        Leftovers of broken uploads go too, and so does every later checkpoint: a run that saves step 50 has not come to
        step 100, so what lies there belongs to an attempt that was given up.
        """
        self._remove([step])
        files = transfer.hash_files(folder, _paths(folder))
        transfer.upload(self._store, layout.checkpoint_folder(self._uid, step), folder, files, progress)
        manifest = CheckpointManifest(step=step, files=files)
        self._store.put(self._manifest_key(step), manifest.dump_json().encode())
        kept = [other for other in self.checkpoints() if other <= step][-max(keep, 1) :]
        self._remove(other for other in self._by_step() if other not in kept)

    def load_checkpoint(self, step: int, folder: Path, progress: Progress | None = None) -> None:
        """Downloads a checkpoint into a folder, verified.

        Raises:
            NotFound: when there is no complete checkpoint of that step.
            DigestMismatch: when it is damaged; an older one of `checkpoints()` may still be whole.
        """
        data = self._store.get(self._manifest_key(step)).data
        try:
            files = CheckpointManifest.parse_json(data).files
        except ContractError as error:
            raise DigestMismatch(f"{self._store.uri}/{self._manifest_key(step)} is damaged: {error}") from error
        for file in files:
            layout.checked_path(file.path)
        transfer.download(self._store, layout.checkpoint_folder(self._uid, step), folder, files, progress)

    def remove_checkpoints(self) -> None:
        """Removes all checkpoints, complete or not: for a run that has its result, and needs none any more."""
        self._remove(list(self._by_step()))

    def _manifest_key(self, step: int) -> str:
        return layout.checkpoint_folder(self._uid, step) + layout.MANIFEST

    def _by_step(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = {}
        for entry in self._store.list(self._folder):
            step = layout.checkpoint_step(self._uid, entry.key)
            if step is not None:
                found.setdefault(step, set()).add(entry.key)
        return found

    def _remove(self, steps: Iterable[int]) -> None:
        present = self._by_step()
        for step in steps:
            self._store.delete([self._manifest_key(step)])
            self._store.delete(sorted(present.get(step, ())))


def _paths(folder: Path) -> list[str]:
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with contextlib.suppress(ValueError):
        paths.remove(layout.MANIFEST)
    return paths
