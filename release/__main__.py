"""Makes a release: version, changelog, wheel, chart, SBOMs, sums, images, commit and tag. Pushes images, never Git.

python -m release 0.2.0 --dry-run                              # in a clone, without images; shows what would be done
python -m release 0.2.0 --registry registry.example.com/team   # for good
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from release.versions import IMAGES, ReleaseError, bump, current, require_next

ROOT = Path(__file__).parents[1]
_BUILDERS = ("docker", "podman")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 once everything is made, 1 where something stands against it."""
    parser = argparse.ArgumentParser(
        prog="python -m release", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("version", help="such as 0.2.0 or 0.2.0-rc.1")
    parser.add_argument("--dry-run", action="store_true", help="do it in a clone, and build no images")
    parser.add_argument("--registry", default="", help="where the images go; without it none are built")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the files (default: %(default)s)")
    parser.add_argument("--uv", default=shutil.which("uv") or "uv")
    parser.add_argument("--helm", default=shutil.which("helm") or "helm")
    options = parser.parse_args(arguments)
    try:
        with _place(dry=options.dry_run) as root:
            Release(root, options.version, options.out.absolute(), options.uv, options.helm).make(
                options.registry, dry=options.dry_run
            )
    except (ReleaseError, subprocess.CalledProcessError, FileNotFoundError) as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _place(*, dry: bool) -> Iterator[Path]:
    """Yields the checkout, or, to try things out, a clone of its last commit that goes afterwards."""
    if not dry:
        if _run(["git", "status", "--porcelain"], ROOT, quiet=True).strip():
            raise ReleaseError("the checkout has changes that are not committed: commit or stash them")
        yield ROOT
        return
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        _run(["git", "clone", "--quiet", "--shared", str(ROOT), folder], ROOT)
        yield Path(folder)


class Release:
    """One version, made in one checkout."""

    def __init__(self, root: Path, version: str, out: Path, uv: str, helm: str) -> None:
        self._root, self._version, self._out, self._uv, self._helm = root, version, out, uv, helm

    def make(self, registry: str, *, dry: bool) -> None:
        """Does every step; what fails leaves no commit and no tag behind."""
        self._require_new()
        self._out.mkdir(parents=True, exist_ok=True)
        changed = self._bump()
        made = [self._wheel(), self._chart(), *self._boms()]
        self._sums(made)
        self._images(registry, dry=dry)
        self._commit(changed)
        print(f"\n{self._version} is made: {', '.join(path.name for path in made)}, SHA256SUMS in {self._out}")
        print(f"to publish it: git push origin HEAD v{self._version}")

    def _require_new(self) -> None:
        require_next(current(self._root), self._version)
        if self._git("tag", "--list", f"v{self._version}").strip():
            raise ReleaseError(f"there is a tag v{self._version} already: write a higher version")

    def _bump(self) -> list[str]:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        changed = bump(self._root, self._version, today, self._git("ls-files").splitlines())
        print(f"version {self._version} in {', '.join(changed)}")
        return changed

    def _wheel(self) -> Path:
        self._call([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(self._out)])
        # A version's candidate is written 0.2.0rc1 in Python (PEP 440).
        return self._out / f"skillupdate-{self._version.replace('-rc.', 'rc')}-py3-none-any.whl"

    def _chart(self) -> Path:
        self._call([self._helm, "package", "charts/skillupdate", "--destination", str(self._out)])
        return self._out / f"skillupdate-{self._version}.tgz"

    def _boms(self) -> Iterator[Path]:
        """What is in each image, as uv.lock pins it; Debian's packages are the base image's to tell."""
        pinned = ["export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--format", "cyclonedx1.5"]
        for image in IMAGES:
            path = self._out / f"skillupdate-{image}-{self._version}.cdx.json"
            self._call([self._uv, *pinned, "--extra", image, "--output-file", str(path)])
            yield path

    def _sums(self, made: Sequence[Path]) -> None:
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
        (self._out / "SHA256SUMS").write_text("".join(lines))

    def _images(self, registry: str, *, dry: bool) -> None:
        if not registry and not dry:
            print("no images: no --registry was given")
            return
        builder = next((name for name in _BUILDERS if shutil.which(name)), _BUILDERS[0])
        for image in IMAGES:
            tag = f"{registry or 'registry.example.com'}/skillupdate/{image}:{self._version}"
            for command in image_commands(builder, image, tag):
                if dry:
                    print(f"would run: {shlex.join(command)}")
                else:
                    self._call(command)

    def _commit(self, changed: Sequence[str]) -> None:
        self._git("add", *changed)
        self._git("commit", "--quiet", "--message", f"Release {self._version}")
        self._git("tag", "--annotate", f"v{self._version}", "--message", f"Release {self._version}")

    def _git(self, *arguments: str) -> str:
        return _run(["git", *arguments], self._root, quiet=True)

    def _call(self, command: list[str]) -> None:
        print(f"$ {shlex.join(command)}", flush=True)
        _run(command, self._root)


def image_commands(builder: str, image: str, tag: str) -> list[list[str]]:
    """Returns what builds and pushes an image: BuildKit writes provenance and SBOM beside it, podman cannot."""
    if builder == "docker":
        attested = ["--provenance=mode=max", "--sbom=true", "--push"]
        return [["docker", "buildx", "build", "--target", image, "--tag", tag, *attested, "."]]
    return [["podman", "build", "--target", image, "--tag", tag, "."], ["podman", "push", tag]]


def _run(command: list[str], folder: Path, *, quiet: bool = False) -> str:
    ran = subprocess.run(
        command, cwd=folder, env=os.environ, text=True, check=True, stdout=subprocess.PIPE if quiet else None
    )
    return ran.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
