"""Where the version stands, and how it gets from one to the next. Pure but for reading and writing those files."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-rc\.(\d+))?")
TAGGED = ("operator", "store", "trainer")
"""Images whose tags stand in documents and manifests."""


class ReleaseError(ValueError):
    """Something stands against a release; the message has the place and the way out."""


def current(root: Path) -> str:
    """Returns the version that pyproject.toml names."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def require_next(old: str, new: str) -> None:
    """Raises ReleaseError where `new` is no version, or does not come after `old`."""
    if not VERSION.fullmatch(new):
        raise ReleaseError(f"{new!r} is no version: write one such as 0.2.0 or 0.2.0-rc.1")
    if _order(new) <= _order(old):
        raise ReleaseError(f"{new} does not come after {old}, which pyproject.toml names: write a higher one")


def _order(version: str) -> tuple[float, ...]:
    match = VERSION.fullmatch(version)
    assert match, f"{version} stands in pyproject.toml"
    major, minor, patch, candidate = match.groups()
    return int(major), int(minor), int(patch), float(candidate) if candidate else float("inf")


def bump(root: Path, new: str, date: str, files: Sequence[str]) -> list[str]:
    """Writes a version wherever the old one stands, and closes the changelog's Unreleased; returns the changed files.

    Args:
        date: of the release, YYYY-MM-DD.
        files: all that Git knows: image tags in documents and manifests follow.

    Raises:
        ReleaseError: where a file does not have the old version in its place, or nothing is unreleased.
    """
    old = re.escape(current(root))
    require_next(current(root), new)
    _replace(root / "pyproject.toml", rf'(?m)^version = "{old}"$', f'version = "{new}"')
    _replace(root / "uv.lock", rf'(name = "skillupdate"\nversion = )"{old}"', rf'\g<1>"{new}"')
    _replace(root / "charts/skillupdate/Chart.yaml", rf"(?m)^((?:app)?[vV]ersion): {old}$", rf"\g<1>: {new}", count=2)
    changelog = root / "CHANGELOG.md"
    notes = re.search(r"## \[Unreleased\]\n(.*?)(?=\n## \[|\Z)", changelog.read_text(), re.DOTALL)
    if not notes or not notes[1].strip():
        raise ReleaseError("CHANGELOG.md has nothing under [Unreleased]: say there what this release brings")
    _replace(changelog, r"## \[Unreleased\]\n", f"## [Unreleased]\n\n## [{new}] - {date}\n")
    tagged = re.compile(rf"(skillupdate/(?:{'|'.join(TAGGED)}|\$image)):{old}(?![\w.-])")
    changed = ["pyproject.toml", "uv.lock", "charts/skillupdate/Chart.yaml", "CHANGELOG.md"]
    for name in files:
        path = root / name
        if path.suffix in {".md", ".yaml", ".txt"} and name not in changed and tagged.search(path.read_text()):
            path.write_text(tagged.sub(rf"\g<1>:{new}", path.read_text()))
            changed.append(name)
    return changed


def _replace(path: Path, pattern: str, replacement: str, *, count: int = 1) -> None:
    text, found = re.subn(pattern, replacement, path.read_text())
    if found != count:
        raise ReleaseError(f"{path.name} has the old version in {found} places where {count} were expected: look there")
    path.write_text(text)
