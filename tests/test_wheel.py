"""The wheel has everything that its programs read, and its programs run where there is no checkout."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from tests.test_architecture import PACKAGES
from tests.wheel import COMMANDS, build, try_commands


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel and, beside it, the libraries of this one."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    pip = [str(place / "bin/pip"), "install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)]
    subprocess.run([*pip, "--disable-pip-version-check"], check=True, capture_output=True)
    (packages,) = place.glob("lib/python*/site-packages")
    # As a line of a .pth file a folder joins the path without its own .pth files: the checkout stays out.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return place / "bin"


def test_everything_that_stands_in_a_package_is_in_the_wheel_and_nothing_else(wheel: Path):
    """Templates of the report, words about reasons: what is no Python is needed at run time just as much."""
    there = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == there
    assert {Path(name).suffix for name in names} == {".py", ".j2", ".css", ".toml"}


def test_metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(files.read(name).decode())
    assert set(metadata.get_all("Provides-Extra", [])) >= COMMANDS.keys()
    assert (metadata["Requires-Python"], metadata["License-Expression"]) == (">=3.11", "Apache-2.0")
    assert metadata.get_payload().startswith("# skillupdate")
    light = [need for need in metadata.get_all("Requires-Dist", []) if "extra == 'kubectl'" in need]
    assert {need.split("<")[0].split(">")[0] for need in light} == {"kubernetes", "pyyaml", "rich"}


@pytest.mark.parametrize("extra", COMMANDS)
def test_programs_run_without_the_checkout(installed: Path, extra: str, tmp_path: Path):
    try_commands(installed, extra, tmp_path)
    if extra == "trainer":
        assert "<html" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("program", "package", "extra", "code"),
    [
        ("skill-operator", "kopf", "operator", 64),
        ("skill-store", "botocore", "store", 42),
        ("skill-trainer", "regex", "trainer", 42),
        ("skill-trainer", "torch", "trainer", 42),
    ],
)
def test_program_without_its_extra_names_it(
    installed: Path, program: str, package: str, extra: str, code: int, tmp_path: Path
):
    hidden = (
        f"import sys; from importlib.metadata import entry_points as found; sys.modules['{package}'] = None; "
        f"(program,) = found(group='console_scripts', name='{program}'); sys.exit(program.load()())"
    )
    words = ["estimate", "--model", "m", "--data", "d", "--held-out", "h"] if program == "skill-trainer" else ["list"]
    command = [str(installed / "python"), "-I", "-c", hidden, *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    expected = f"{program} needs the package {package}: pip install 'skillupdate[{extra}]'"
    assert done.stderr.splitlines()[-1].endswith(expected)
    assert "Traceback" not in done.stderr
    assert done.returncode == code


def test_it_is_the_wheel_that_runs(installed: Path, tmp_path: Path):
    code = "import kubectl_skill, skill_trainer; print(kubectl_skill.__file__, skill_trainer.__file__)"
    command = [str(installed / "python"), "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(str(installed.parent) in path for path in done.stdout.split())
