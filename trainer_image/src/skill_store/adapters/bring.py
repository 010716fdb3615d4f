"""Brings the adapter of a version out of the repository: verified like everything else, and fit for what it goes on.

An adapter is a difference to one version's weights. On others it would answer, and wrongly; so what the pod's own
weights are is asked of their manifest, not assumed.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skill_contract.adapters import model_name
from skill_contract.manifest import FetchMessage, Manifest, VersionRef, digest_of, version_name
from skill_contract.model import ContractError
from skill_store import layout
from skill_store.errors import BaseMismatch, NotFound, StoreError
from skill_store.repository import Repository

ADAPTER = "adapter/"
"""Folder of a version in which its adapter lies, in PEFT's format."""


@dataclass(frozen=True, slots=True)
class Bring:
    """From repositories into one folder, for an engine that holds the version in `base`."""

    base: Path
    """Where the fetch container has put the engine's own weights."""
    folder: Path
    """On a volume that the engine sees at the same path."""

    def place(self, name: str) -> Path:
        """Returns where the adapter of a version lies."""
        return self.folder / name / ADAPTER

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
        base = self.base_version()
        size = repository.download_part(ref, ADAPTER, self.folder / model_name(weights))
        if not size:
            raise NotFound(
                f"{repository.uri}: version {ref.version} has no {ADAPTER}; train with adaptation.lora.publish Adapter",
                file=ADAPTER,
            )
        wanted = self._base_of(ref.version)
        if wanted != base.version:
            raise BaseMismatch(
                f"the adapter of {ref.version} belongs to {wanted or 'no version'}, and {self.base} holds"
                f" {base.version}: let the fetch container bring {wanted or 'its parent'}, or roll the whole weights"
                " (strategy: Rolling)",
                file=f"{ADAPTER}adapter_config.json",
            )
        return FetchMessage(
            outcome="Fetched",
            uri=weights.partition("@")[0],
            version=ref.version,
            digest=ref.digest,
            size_bytes=size,
            seconds=round(time.monotonic() - started, 3),
        )

    def _base_of(self, name: str) -> str:
        try:
            config: Any = json.loads((self.place(name) / "adapter_config.json").read_bytes())
            return str(config["base_model_name_or_path"] or "")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{name}: {ADAPTER}adapter_config.json is no adapter's: {error}") from error
