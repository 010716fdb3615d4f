"""The worked examples of CONTRIBUTING.md, applied to a copy of the tree block by block; what they promise is tried."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("operator/src", "trainer_image/src", "crds", "charts/skillupdate/templates")
BLOCK = re.compile(r"<!-- (file|change|try)(?:: (\S+))? -->\n```\w+\n(.*?)```", re.DOTALL)
EXAMPLES = {
    title: BLOCK.findall(text)
    for title, text in re.findall(
        r"^## Worked example: (.*?)\n(.*?)(?=^## )", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
    )
}


def changed(text: str, diff: str, place: str) -> str:
    """Returns a text with a diff applied wherever its old lines stand."""
    lines = diff.splitlines()
    old = "\n".join(line[1:] for line in lines if line[:1] in {"-", " "})
    new = "\n".join(line[1:] for line in lines if line[:1] in {"+", " "})
    assert old in text, f"{place} has no such lines any more:\n{old}"
    return text.replace(old, new)


@pytest.mark.parametrize("title", EXAMPLES)
def test_worked_example(title: str, tmp_path: Path):
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    tried = 0
    for kind, name, block in EXAMPLES[title]:
        path = tmp_path / name
        if kind == "file":
            assert not path.exists(), f"{name} is there already: take another example"
            path.write_text(block)
        elif kind == "change":
            path.write_text(changed(path.read_text(), block, name))
        else:
            script = tmp_path / "tried.py"
            script.write_text(block)
            sources = f"{tmp_path / 'operator/src'}:{tmp_path / 'trainer_image/src'}"
            ran = subprocess.run(
                [sys.executable, str(script)],
                env={"PYTHONPATH": sources},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode == 0, ran.stderr
            tried += 1
    assert tried, "nothing shows that it works"


@pytest.mark.parametrize("title", EXAMPLES)
def test_worked_example_keeps_the_style(title: str, tmp_path: Path):
    files = [(Path(name).name, block) for kind, name, block in EXAMPLES[title] if kind == "file"]
    assert files
    for name, block in files:
        (tmp_path / name).write_text(block)
    for check in (["check", "--ignore=INP001"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, f"--config={ROOT / 'pyproject.toml'}", str(tmp_path)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_there_are_two():
    assert list(EXAMPLES) == ["a grader", "a kind of serving target"]


def test_a_diff_that_does_not_fit_is_told():
    with pytest.raises(AssertionError, match="no such lines"):
        changed("a\nb\n", "-c\n+d", "x")
