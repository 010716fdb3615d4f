"""The folder of one update's run: checkpoints to resume from, and small files (result.json, metrics.jsonl, report).

A checkpoint is complete when its manifest is there: the manifest is the last thing written and the first removed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

from skill_contract.manifest import File
from skill_contract.model import ContractError, Document
from skill_store import layout, transfer
from skill_store.download import download
from skill_store.errors import DigestMismatch, NotFound, PreconditionFailed, StoreUnavailable
from skill_store.protocol import ObjectStore
from skill_store.transfer import Progress

PART_SECONDS = 600.0
"""How much longer than the first machine another may take to bring its part of a checkpoint."""
LOOK_SECONDS = 0.5


class CheckpointManifest(Document):
    """What a complete checkpoint consists of, or one machine's part of it."""

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

    def save_checkpoint(
        self, step: int, folder: Path, keep: int, progress: Progress | None = None, *, parts: int = 1
    ) -> None:
        """Uploads a folder as the checkpoint of a step and removes all but the newest `keep` complete ones.

        Leftovers of broken uploads go too, and so does every later checkpoint: a run that saves step 50 has not come to
        step 100, so what lies there belongs to an attempt that was given up.

        Args:
            parts: of so many machines, after `begin_checkpoint`: the others' come by `save_part`, and are waited for.

        Raises:
            StoreUnavailable: another machine's part has not come.
        """
        if parts == 1:
            self.begin_checkpoint(step)
        files = self._upload(step, folder, progress)
        for part in range(1, parts):
            files += self._await_part(step, part)
        manifest = CheckpointManifest(step=step, files=files)
        self._store.put(self._manifest_key(step), manifest.dump_json().encode())
        kept = [other for other in self.checkpoints() if other <= step][-max(keep, 1) :]
        self._remove(other for other in self._by_step() if other not in kept)

    def begin_checkpoint(self, step: int) -> None:
        """Removes what may be left of that step; before any of several machines saves its part."""
        self._remove([step])

    def save_part(self, step: int, part: int, folder: Path) -> None:
        """Uploads what the machine `part`, from 1, has of a checkpoint; `save_checkpoint` of the first completes it."""
        document = CheckpointManifest(step=step, files=self._upload(step, folder, None))
        self._store.put(self._part_key(step, part), document.dump_json().encode())

    def _upload(self, step: int, folder: Path, progress: Progress | None) -> tuple[File, ...]:
        files = transfer.hash_files(folder, _paths(folder))
        transfer.upload(self._store, layout.checkpoint_folder(self._uid, step), folder, files, progress)
        return files

    def _await_part(self, step: int, part: int) -> tuple[File, ...]:
        deadline = time.monotonic() + PART_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(NotFound):
                return self._files_in(self._part_key(step, part))
            time.sleep(LOOK_SECONDS)
        raise StoreUnavailable(
            f"machine {part + 1} has not brought its part of checkpoint {step} within {PART_SECONDS:.0f} s after the "
            "first: see its log"
        )

    def _part_key(self, step: int, part: int) -> str:
        return f"{layout.checkpoint_folder(self._uid, step)}part-{part:05}.json"

    def load_checkpoint(self, step: int, folder: Path, progress: Progress | None = None) -> None:
        """Downloads a checkpoint into a folder, verified.

        Raises:
            NotFound: when there is no complete checkpoint of that step.
            DigestMismatch: when it is damaged; an older one of `checkpoints()` may still be whole.
        """
        files = self._files_in(self._manifest_key(step))
        download(self._store, layout.checkpoint_folder(self._uid, step), folder, files, progress)

    def _files_in(self, key: str) -> tuple[File, ...]:
        """Returns what a manifest, or a part of one, names; raises NotFound, or DigestMismatch for a damaged one."""
        data = self._store.get(key).data
        try:
            files = CheckpointManifest.parse_json(data).files
        except ContractError as error:
            raise DigestMismatch(f"{self._store.uri}/{key} is damaged: {error}", file=key) from error
        layout.check_files(files, f"{self._store.uri}/{key}")
        return files

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
