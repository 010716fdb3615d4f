"""Makes a release: version, changelog, commit, wheel, chart, SBOMs, images, sums, tag. Pushes images, never Git.

python -m release 0.2.0 --dry-run                              # without images; shows what would be run
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from release.images import IMAGES, Images
from release.versions import ReleaseError, bump, current, require_next

ROOT = Path(__file__).parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 once everything is made, 1 where something stands against it."""
    parser = argparse.ArgumentParser(
        prog="python -m release", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("version", help="such as 0.2.0 or 0.2.0-rc.1")
    parser.add_argument("--dry-run", action="store_true", help="build no images, and leave neither commit nor tag")
    parser.add_argument("--registry", default="", help="where the images go; without it none are built")
    parser.add_argument(
        "--base", default="", help="image that they are built on, by digest (default: the Dockerfile's)"
    )
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the files (default: %(default)s)")
    parser.add_argument("--uv", default=shutil.which("uv") or "uv")
    parser.add_argument("--helm", default=shutil.which("helm") or "helm")
    options = parser.parse_args(arguments)
    try:
        images = Images(options.registry, options.base, dry=options.dry_run)
        with _beside(dry=options.dry_run) as root:
            release = Release(root, options.version, options.out.absolute(), options.uv, options.helm)
            release.make(images, dry=options.dry_run)
            if options.dry_run:
                print("a dry run: nothing was pushed, committed or tagged")
            else:
                release.bring_home()
    except (ReleaseError, subprocess.CalledProcessError, FileNotFoundError) as error:
        print(f"no release: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def _beside(*, dry: bool) -> Iterator[Path]:
    """Yields a worktree of the last commit that goes afterwards: what is built there has nothing else in it."""
    if not dry and _run(["git", "status", "--porcelain"], ROOT, quiet=True).strip():
        raise ReleaseError("the checkout has changes that are not committed: commit or stash them")
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        _run(["git", "worktree", "add", "--quiet", "--detach", folder], ROOT)
        try:
            yield Path(folder)
        finally:
            _run(["git", "worktree", "remove", "--force", folder], ROOT)


class Release:
    """One version, made in a worktree of its own: what fails leaves no commit and no tag behind."""

    def __init__(self, root: Path, version: str, out: Path, uv: str, helm: str) -> None:
        self._root, self._version, self._out, self._uv, self._helm = root, version, out, uv, helm

    def make(self, images: Images, *, dry: bool) -> None:
        """Does every step there; pushes images, unless it is dry."""
        self._require_new()
        self._out.mkdir(parents=True, exist_ok=True)
        self._commit()
        made = [self._wheel(), self._chart(), *self._boms(), *self._images(images, dry=dry)]
        self._sums(made)
        print(f"\n{', '.join(path.name for path in made)}, SHA256SUMS are in {self._out}")

    def bring_home(self) -> None:
        """Gives the checkout the commit, and the commit its tag."""
        commit = self._git("rev-parse", "HEAD").strip()
        _run(["git", "merge", "--quiet", "--ff-only", commit], ROOT)
        self._git("tag", "--annotate", self._tag, commit, "--message", f"Release {self._version}")
        print(f"the commit and the tag are here; to publish them: git push origin HEAD {self._tag}")

    @property
    def _tag(self) -> str:
        return f"v{self._version}"

    def _require_new(self) -> None:
        require_next(current(self._root), self._version)
        if self._git("tag", "--list", self._tag).strip():
            raise ReleaseError(f"there is a tag {self._tag} already: write a higher version")

    def _commit(self) -> None:
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        changed = bump(self._root, self._version, today, self._git("ls-files").splitlines())
        print(f"version {self._version} in {', '.join(changed)}")
        self._git("add", *changed)
        self._git("commit", "--quiet", "--message", f"Release {self._version}")

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
        for image, extra in IMAGES.items():
            path = self._out / f"skillupdate-{image}-{self._version}.cdx.json"
            self._call([self._uv, *pinned, "--extra", extra, "--output-file", str(path)])
            yield path

    def _images(self, images: Images, *, dry: bool) -> Iterator[Path]:
        """Builds and pushes them; what comes of it is the chart's values by which exactly these are installed."""
        if not images.registry and not dry:
            print("no images: no --registry was given")
            return
        revision = self._git("rev-parse", "HEAD").strip()
        digests: dict[str, str] = {}
        for image in IMAGES:
            for command in images.commands(image, self._version, revision, self._out):
                if dry:
                    print(f"would run: {shlex.join(command)}")
                else:
                    self._call(command)
            if not dry:
                digests[image] = images.digest(image, self._out)
        if not dry:
            yield self._values(images.registry, digests)

    def _values(self, registry: str, digests: Mapping[str, str]) -> Path:
        path = self._out / f"skillupdate-images-{self._version}.yaml"
        lines = [f"  {image}: {{digest: {digest}}}\n" for image, digest in digests.items()]
        path.write_text(f"# helm install --values\nimage:\n  registry: {registry}\n{''.join(lines)}")
        return path

    def _sums(self, made: Sequence[Path]) -> None:
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
        (self._out / "SHA256SUMS").write_text("".join(lines))

    def _git(self, *arguments: str) -> str:
        return _run(["git", *arguments], self._root, quiet=True)

    def _call(self, command: list[str]) -> None:
        """Runs it with the time of the commit, by which wheel and images have the same bytes when built again."""
        print(f"$ {shlex.join(command)}", flush=True)
        _run(command, self._root, SOURCE_DATE_EPOCH=self._git("log", "-1", "--format=%ct").strip())


def _run(command: list[str], folder: Path, *, quiet: bool = False, **variables: str) -> str:
    out = subprocess.PIPE if quiet else None
    ran = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, text=True, check=True, stdout=out)
    return ran.stdout or ""


if __name__ == "__main__":
    sys.exit(main())
