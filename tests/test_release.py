"""The release's script: all of it but the building of images, in whose place a script notes what it is asked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from release.images import IMAGES, Images
from release.versions import ReleaseError, bump, current, require_next

from tests.cluster.binaries import binary, uv

ROOT = Path(__file__).parents[1]
FILES = ("pyproject.toml", "uv.lock", "CHANGELOG.md", "charts/skillupdate/Chart.yaml", "docs/first-update.md")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that have a version in them."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_a_version_goes_everywhere(checkout: Path):
    old = current(checkout)
    changed = bump(checkout, "9.1.0", "2030-01-02", FILES)
    assert current(checkout) == "9.1.0"
    assert set(FILES) == set(changed)
    chart = (checkout / "charts/skillupdate/Chart.yaml").read_text()
    assert "\nversion: 9.1.0\n" in chart
    assert "\nappVersion: 9.1.0\n" in chart
    assert 'name = "skillupdate"\nversion = "9.1.0"' in (checkout / "uv.lock").read_text()
    assert "## [Unreleased]\n\n## [9.1.0] - 2030-01-02\n\n### Added" in (checkout / "CHANGELOG.md").read_text()
    assert old not in (checkout / "docs/first-update.md").read_text()


def test_a_release_without_notes_is_refused(checkout: Path):
    (checkout / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n## [0.0.1] - 2020-01-01\n\n- old\n")
    with pytest.raises(ReleaseError, match="nothing under"):
        bump(checkout, "9.1.0", "2030-01-02", FILES)


@pytest.mark.parametrize("new", ["0.1.0", "0.0.9", "v1.0.0", "1.0", "1.0.0-beta", "01.0.0", "0.1.0-rc.1"])
def test_what_is_no_next_version_is_refused(new: str):
    with pytest.raises(ReleaseError, match=re.escape(new)):
        require_next("0.1.0", new)


@pytest.mark.parametrize("new", ["0.1.1", "0.2.0-rc.1", "10.0.0"])
def test_the_next_version_is_taken(new: str):
    require_next("0.1.0", new)
    require_next("0.2.0-rc.1", "0.2.0")


def test_images_are_built_with_what_attests_them(tmp_path: Path):
    images = Images("registry.example.com/team", "debian@sha256:1", builder="docker")
    (build,) = images.commands("store", "1.0.0", "abc", tmp_path)
    assert {"--provenance=mode=max", "--sbom=true", "--push", "BASE=debian@sha256:1"} <= set(build)
    assert "org.opencontainers.image.revision=abc" in build
    assert "registry.example.com/team/skillupdate/store:1.0.0" in build
    by_podman = Images("r", builder="podman").commands("store", "1.0.0", "abc", tmp_path)
    assert [command[:2] for command in by_podman] == [["podman", "build"], ["podman", "push"]]


def test_every_target_of_the_dockerfile_has_the_libraries_of_its_bom():
    pins = dict(
        re.findall(r"pins (?:--extra \w+ )*--extra (\w+) > /builder/(\w+).txt", (ROOT / "Dockerfile").read_text())
    )
    assert {extra: image for image, extra in IMAGES.items()}.items() <= pins.items()


DOCKER = """#!/bin/sh
# In docker's place: notes how it was called, and says what BuildKit would of an image that it has pushed.
echo "$SOURCE_DATE_EPOCH $(git -C . rev-parse HEAD) $*" >> "$NOTES"
for word in "$@"; do
    case "$word" in --metadata-file=*) echo '{"containerimage.digest": "sha256:of-'$4'"}' > "${word#*=}";; esac
done
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of this repository as it is now, with a docker that only notes what it is asked."""
    folder = tmp_path / "repository"
    subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(folder)], check=True)
    shutil.copytree(ROOT / "release", folder / "release", dirs_exist_ok=True)
    for words in (
        ["config", "user.name", "A maintainer"],
        ["config", "user.email", "m@example.com"],
        ["config", "commit.gpgsign", "false"],
        ["add", "release"],
        ["commit", "--quiet", "--allow-empty", "--message", "as it is now"],
    ):
        subprocess.run(["git", *words], cwd=folder, check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(DOCKER)
    (tmp_path / "bin/docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


def release(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "release", *words, f"--uv={uv()}", f"--helm={binary('helm')}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_release_is_one_commit_with_its_images_and_a_tag(repository: Path, tmp_path: Path):
    before = git(repository, "rev-parse", "HEAD")
    ran = release(repository, "9.1.0", "--registry=registry.example.com", f"--out={tmp_path / 'dist'}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    commit = git(repository, "rev-parse", "HEAD")
    assert git(repository, "rev-parse", "HEAD~1", "v9.1.0^{commit}").split() == [before, commit]
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "worktree", "list").count("\n") == 0
    time = git(repository, "log", "-1", "--format=%ct")
    notes = (tmp_path / "notes").read_text().splitlines()
    assert [line.split()[:2] for line in notes] == [[time, commit]] * 3
    values = yaml.safe_load((tmp_path / "dist/skillupdate-images-9.1.0.yaml").read_text())
    assert values["image"] == {"registry": "registry.example.com"} | {
        image: {"digest": f"sha256:of-{image}"} for image in IMAGES
    }
    assert "skillupdate-images-9.1.0.yaml" in (tmp_path / "dist/SHA256SUMS").read_text()


def test_a_release_that_fails_leaves_nothing_behind(repository: Path, tmp_path: Path):
    before = git(repository, "rev-parse", "HEAD"), git(repository, "tag")
    (tmp_path / "bin/docker").write_text("#!/bin/sh\nexit 3\n")
    ran = release(repository, "9.1.0", "--registry=registry.example.com", f"--out={tmp_path / 'dist'}")
    assert (ran.returncode, "no release" in ran.stderr) == (1, True)
    assert (git(repository, "rev-parse", "HEAD"), git(repository, "tag")) == before
    assert git(repository, "status", "--porcelain") == ""
    (repository / "README.md").write_text("changed")
    ran = release(repository, "9.1.0", f"--out={tmp_path / 'dist'}")
    assert (ran.returncode, "commit or stash" in ran.stderr) == (1, True)


def test_a_dry_run_makes_everything_and_changes_nothing(tmp_path: Path):
    state = ["git", "-C", str(ROOT), "rev-parse", "HEAD"], ["git", "-C", str(ROOT), "tag"]
    before = [subprocess.run(each, capture_output=True, check=True).stdout for each in state]
    ran = release(ROOT, "9.1.0-rc.1", "--dry-run", f"--out={tmp_path}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert [subprocess.run(each, capture_output=True, check=True).stdout for each in state] == before
    sums = dict(reversed(line.split("  ")) for line in (tmp_path / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in sums}
    (wheel,) = tmp_path.glob("*.whl")
    assert "skill_operator/plan.py" in zipfile.ZipFile(wheel).namelist()
    with tarfile.open(tmp_path / "skillupdate-9.1.0-rc.1.tgz") as chart:
        assert "skillupdate/Chart.yaml" in chart.getnames()
    for image, inside, not_inside in (
        ("operator", "kopf", "torch"),
        ("store", "boto3", "kopf"),
        ("trainer", "torch", "kubernetes"),
    ):
        bom = json.loads((tmp_path / f"skillupdate-{image}-9.1.0-rc.1.cdx.json").read_text())
        names = {component["name"] for component in bom["components"]}
        assert inside in names
        assert not_inside not in names
    assert {wheel.name, "skillupdate-9.1.0-rc.1.tgz"} < set(sums)
    assert "would run: docker buildx build --target trainer" in ran.stdout or "would run: podman" in ran.stdout
