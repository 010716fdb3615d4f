"""How the images of a release are built and pushed, and where their digests are found. Runs nothing itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from release.versions import ReleaseError

IMAGES = {"operator": "operator", "store": "store", "trainer": "steps"}
"""The Dockerfile's targets, and the extra of pyproject.toml that each holds."""
_BUILDERS = ("docker", "podman")


@dataclass(frozen=True)
class Images:
    """All images of one release."""

    registry: str
    base: str = ""
    """The image that they are built on; empty: that of the Dockerfile."""
    dry: bool = False
    builder: str = ""
    """`docker` or `podman`; empty: what this machine has."""

    def commands(self, image: str, version: str, revision: str, out: Path) -> list[list[str]]:
        """Returns what builds and pushes one, and leaves its digest in `out`.

        BuildKit attests to what it did: provenance with all that went in, and an SBOM that has Debian's packages, too,
        both beside the image in the registry. podman cannot.

        Raises:
            ReleaseError: there is nothing to build with.
        """
        tag = f"{self.registry or 'registry.example.com'}/skillupdate/{image}:{version}"
        labels = {"version": version, "revision": revision, "licenses": "Apache-2.0"}
        common = ["--target", image, "--tag", tag]
        common += [
            word for key, value in labels.items() for word in ("--label", f"org.opencontainers.image.{key}={value}")
        ]
        common += ["--build-arg", f"BASE={self.base}"] if self.base else []
        found = str(_found(image, out))
        if self._builder() == "docker":
            attested = ["--provenance=mode=max", "--sbom=true", "--push", f"--metadata-file={found}"]
            return [["docker", "buildx", "build", *common, *attested, "."]]
        return [["podman", "build", *common, "."], ["podman", "push", f"--digestfile={found}", tag]]

    def digest(self, image: str, out: Path) -> str:
        """Returns the digest under which the registry has one, and removes the file that said it."""
        path = _found(image, out)
        text = path.read_text()
        path.unlink()
        return str(json.loads(text)["containerimage.digest"]) if self._builder() == "docker" else text.strip()

    def _builder(self) -> str:
        found = self.builder or next((name for name in _BUILDERS if shutil.which(name)), "")
        if not found and not self.dry:
            raise ReleaseError("neither docker (with buildx) nor podman is here to build images: install one")
        return found or _BUILDERS[0]


def _found(image: str, out: Path) -> Path:
    return out / f"{image}.digest"
