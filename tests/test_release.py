"""The release's script: in a clone it makes everything but images, and changes nothing of the checkout."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from release.__main__ import image_commands
from release.versions import ReleaseError, bump, current, require_next

from tests.cluster.binaries import binary, cache_folder

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
    assert f"skillupdate/store:{old}" not in (checkout / "docs/first-update.md").read_text()


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


def test_images_are_built_with_what_attests_them():
    (build,) = image_commands("docker", "store", "r/skillupdate/store:1.0.0")
    assert {"--provenance=mode=max", "--sbom=true", "--push"} <= set(build)
    assert [command[:2] for command in image_commands("podman", "store", "x")] == [
        ["podman", "build"],
        ["podman", "push"],
    ]


def test_a_dry_run_makes_everything_and_changes_nothing(tmp_path: Path):
    state = ["git", "-C", str(ROOT), "rev-parse", "HEAD"], ["git", "-C", str(ROOT), "tag"]
    before = [subprocess.run(each, capture_output=True, check=True).stdout for each in state]
    command = [sys.executable, "-m", "release", "9.1.0-rc.1", "--dry-run", f"--out={tmp_path}"]
    uv = shutil.which("uv") or next(cache_folder().glob("uv-*/bin/uv"))  # where the Makefile puts it
    tools = [f"--uv={uv}", f"--helm={binary('helm')}"]
    ran = subprocess.run([*command, *tools], cwd=ROOT, capture_output=True, text=True, check=False)
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
        ("trainer", "torch", "kopf"),
    ):
        bom = json.loads((tmp_path / f"skillupdate-{image}-9.1.0-rc.1.cdx.json").read_text())
        names = {component["name"] for component in bom["components"]}
        assert inside in names
        assert not_inside not in names
    assert {wheel.name, "skillupdate-9.1.0-rc.1.tgz"} < set(sums)
    assert "would run: docker buildx build --target trainer" in ran.stdout or "would run: podman" in ran.stdout
