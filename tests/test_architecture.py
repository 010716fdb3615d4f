"""The house rules that a machine can check."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "kubectl_skill": ROOT / "operator/src/kubectl_skill",
    "skill_operator": ROOT / "operator/src/skill_operator",
    "skill_contract": ROOT / "trainer_image/src/skill_contract",
    "skill_store": ROOT / "trainer_image/src/skill_store",
    "skill_trainer": ROOT / "trainer_image/src/skill_trainer",
}
SOURCES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_operator_folder_never_shadows_the_standard_library():
    assert not (ROOT / "operator/__init__.py").exists(), "operator/__init__.py kills every python started in the root"
    ours = [path for folder in ("operator", "trainer_image", "tests") for path in (ROOT / folder).rglob("operator.py")]
    assert not ours, "a module named operator shadows the standard library's"
    packages = {path.name for path in (ROOT / "operator/src").iterdir()} - {"__pycache__"}
    assert packages == {"kubectl_skill", "skill_operator"}
    assert _python("import operator; operator.itemgetter").returncode == 0


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("skill_contract", "torch transformers boto3 kopf kubernetes"),
        ("skill_store.cli", "torch transformers kopf kubernetes boto3 s3transfer httpx aiohttp rich"),
        (
            "kubectl_skill.completion",
            "torch transformers boto3 kopf aiohttp prometheus_client skill_store skill_trainer",
        ),
        ("skill_operator.main", "torch transformers boto3 skill_store skill_trainer"),
    ],
)
def test_import_stays_light(package: str, forbidden: str):
    """What import-linter says of the source, seen in a process: the slim images run without these packages."""
    code = f"import sys, {package}; print([name for name in {forbidden.split()!r} if name in sys.modules])"
    result = _python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_readable_in_one_sitting(path: Path):
    assert len(path.read_text().splitlines()) <= 400


def test_only_one_module_imports_each_heavy_neighbour():
    """Each stands behind one file, so that it can be replaced; attention is a model's, and long enough for its own."""
    doors = {
        "kopf": {"handlers"}, "kubernetes": {"kube", "cluster"}, "boto3": {"s3"}, "transformers": {"model", "packing"},
        "peft": {"adapter"}, "torch.distributed": {"parallel"}, "accelerate": {"parallel"},
    }  # fmt: skip
    for neighbour, allowed in doors.items():
        importing = re.compile(rf"^\s*(from|import) {neighbour}\b", re.MULTILINE)
        found = {path.stem for path in SOURCES if importing.search(path.read_text())}
        assert found == allowed, f"{neighbour} is imported by {sorted(found)}"


def test_no_catch_all_modules():
    assert not [path for path in SOURCES if path.stem in {"utils", "util", "helpers", "common", "misc", "manager"}]


MAP = (ROOT / "ARCHITECTURE.md").read_text()
KNOWN = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize("word", sorted(set(re.findall(r"`([\w./-]*(?:/|\.(?:py|yaml|toml|json|md)))`", MAP))))
def test_the_map_leads_somewhere(word: str):
    """Every file and folder that ARCHITECTURE.md names is there: whole, or as the end of a path."""
    if word in {"versions/", "operator/__init__.py", "operator.py"}:  # in a bucket; and what must not be
        return
    ends = [f"/{path}" for path in KNOWN]
    assert any(f"/{word}" in path if word.endswith("/") else path.endswith(f"/{word}") for path in ends), word


def test_the_map_names_every_folder_and_package():
    tops = {path.partition("/")[0] for path in KNOWN if "/" in path and not path.startswith(".")}
    assert {top for top in tops if f"`{top}/" not in MAP} == set()
    packages = {path.parent.name for path in SOURCES if path.name == "__init__.py"}
    unnamed = {name for name in packages if not re.search(rf"[`/]{name}[`/]", MAP)}
    assert unnamed == set(), "give each a place in ARCHITECTURE.md"
