"""The documents are true where a machine can tell: examples are the real ones, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "charts").rglob("*.md")],
    key=lambda path: path.as_posix(),
)


def _ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_readme_shows_the_update_that_the_demo_applies():
    readme = (ROOT / "README.md").read_text()
    match = re.search(r"<!-- demo:begin -->\n```yaml\n(.*?)```\n<!-- demo:end -->", readme, re.DOTALL)
    assert match, "README has lost its example"
    assert match[1] == (ROOT / "docs/examples/demo/skillupdate.yaml").read_text()


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_links_lead_somewhere(page: Path):
    text = page.read_text()
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    broken = [link for link in links if "://" not in link and not (page.parent / link).is_file()]
    assert not broken, "write the path of a file; of a folder, that of a page or a file in it"


def test_the_site_is_built_without_a_warning(tmp_path: Path):
    """Anchors are checked here, as Git hosts make them."""
    flags = [
        "--fail-on-warning",
        "--keep-going",
        "--quiet",
        "--conf-dir",
        "docs",
        "--doctree-dir",
        str(tmp_path / "read"),
    ]
    build = [sys.executable, "-m", "sphinx", *flags, ".", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "site/README.html").read_text()
    assert 'href="docs/first-update.html"' in home
    assert 'class="mermaid' in home


def test_gates_picture_is_what_the_gate_says():
    drawing = runpy.run_path(str(ROOT / "docs/draw.py"))
    picture = (ROOT / "docs/images/gates.svg").read_text()
    for title, row in drawing["rows"]():
        assert f"{title}: {row.low} to {row.high}, {row.verdict}" in picture, "run python docs/draw.py"


@pytest.mark.parametrize("page", PAGES, ids=_ids)
def test_make_commands_exist(page: Path):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = set(re.findall(r"`make ([a-z-]+)`", page.read_text()))
    assert told <= targets


def test_metrics_page_is_what_is_exposed():
    generate = runpy.run_path(str(ROOT / "docs/generate.py"))
    page = (ROOT / "docs/metrics.md").read_text()
    assert generate["page_with_tables"](page) == page, "run `make metrics`"
    assert "| `skill_operator_reconciles_total` | counter | `result` |" in page


def test_ci_runs_the_readme_command():
    assert "make test" in (ROOT / "README.md").read_text()
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")


def test_decisions_are_numbered_one_after_the_other():
    pages = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    for number, page in enumerate(pages, start=1):
        assert page.name.startswith(f"{number:04}-"), f"{page.name}: two of that number, or a gap"
        assert page.read_text().startswith(f"# {number}. "), f"{page.name}: its title has another number"
