"""Brings the adapter of a version out of the repository: verified like everything else, and fit for what it goes on.

An adapter is a difference to one version's weights. On others it would answer, and wrongly; so what the pod's own
weights are is asked of their manifest, not assumed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from skill_contract.adapters import OLDER, OWN, model_name
from skill_contract.manifest import FetchMessage, Manifest, VersionRef, digest_of, version_name
from skill_contract.model import ContractError
from skill_store import layout
from skill_store.errors import BaseMismatch, NotFound, StoreError
from skill_store.repository import Repository


@dataclass(frozen=True, slots=True)
class Bring:
    """From repositories into one folder, for an engine that holds the version in `base`."""

    base: Path
    """Where the fetch container has put the engine's own weights."""
    folder: Path
    """On a volume that the engine sees at the same path."""

    def place(self, name: str) -> Path:
        """Returns where the adapter of a version lies."""
        return self.folder / name

    def base_version(self) -> VersionRef:
        """Returns the version that the engine's own weights are; raises BaseMismatch where no fetch has put them."""
        try:
            data = (self.base / layout.MANIFEST).read_bytes()
            digest = digest_of(data)
            return VersionRef(version=version_name(Manifest.parse_json(data).sequence, digest), digest=digest)
        except (OSError, ContractError) as error:
            raise BaseMismatch(
                f"{self.base} holds no version that was fetched ({error}): mount the fetch container's volume there"
            ) from error

    def adapter(self, weights: str) -> FetchMessage:
        """Returns the message about a version whose adapter now lies in its place; valid files there are kept.

        Raises:
            BaseMismatch: when it belongs to other weights.
            StoreError: when it cannot be had.
        """
        started, where = time.monotonic(), layout.Location.parse(weights)
        if not where.digest:
            raise StoreError(f"{weights!r}: a version is told as <repository>/versions/<version>@sha256:<digest>")
        repository = Repository(where.repository)
        ref = VersionRef(version=where.version, digest=where.digest)
        part = self._part(repository, ref)
        size = repository.download_part(ref, part, self.place(model_name(weights)))
        return FetchMessage(
            outcome="Fetched",
            uri=weights.partition("@")[0],
            version=ref.version,
            digest=ref.digest,
            size_bytes=size,
            seconds=round(time.monotonic() - started, 3),
        )

    def _part(self, repository: Repository, ref: VersionRef) -> str:
        """Returns the folder of a version in which the adapter for the engine's weights lies."""
        manifest, base = repository.manifest(ref), self.base_version()
        parent = manifest.parent.version if manifest.parent else ""
        paths = [file.path for file in manifest.files]
        older = {path.split("/")[1] for path in paths if path.startswith(f"{OLDER}/")}
        places = {parent: f"{OWN}/"} | {name: f"{OLDER}/{name}/" for name in sorted(older)}
        if not any(path.startswith(f"{OWN}/") for path in paths):
            raise NotFound(
                f"{repository.uri}: version {ref.version} has no {OWN}/; train with adaptation.lora.publish Adapter",
                file=f"{OWN}/",
            )
        if base.version not in places:
            raise BaseMismatch(
                f"{ref.version} has adapters for {', '.join(places)}, and {self.base} holds {base.version}: let the"
                " fetch container bring one of those, or roll the whole weights (strategy: Rolling)",
                file=f"{OWN}/",
            )
        return places[base.version]
