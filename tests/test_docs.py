"""The documents are true where a machine can tell: examples are the real ones, links lead somewhere, commands exist."""

from __future__ import annotations

import re
import runpy
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
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not broken


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
