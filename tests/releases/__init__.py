"""The version before this one, as a release leaves it: its chart with its CRD, and its operator's code.

Tests upgrade from it. `python -m tests.releases COMMIT` freezes another one: after a release, that release's tag.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
ARCHIVE = Path(__file__).parent / "before.tar.xz"
PARTS = ("charts/skillupdate", "operator/src/skill_operator", "trainer_image/src/skill_contract")


def unpack(folder: Path) -> None:
    """Puts the version before into a folder, as a checkout has it."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")


def freeze(commit: str) -> None:
    """Makes a commit the version before."""
    packed = subprocess.run(["git", "archive", commit, *PARTS], cwd=ROOT, check=True, capture_output=True).stdout
    ARCHIVE.write_bytes(subprocess.run(["xz", "-9"], input=packed, check=True, capture_output=True).stdout)


def main() -> int:
    """Freezes the commit of the command line; returns the exit code."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 64
    freeze(sys.argv[1])
    return 0
