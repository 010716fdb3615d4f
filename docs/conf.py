"""The documentation as a site: `make docs`. Sphinx reads the repository's own pages as they are; nothing is copied.

A link that leads nowhere and an anchor that is not there are errors. Diagrams are drawn in the reader's browser, by a
script from a public network of copies.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from sphinx.application import Sphinx

HOME, DECISIONS = "README", "docs/decisions/"
CHAPTERS = {
    "Begin": ["docs/first-update", "docs/examples/README", "docs/comparison", "docs/glossary"],
    "Teach a skill": ["docs/api", "docs/data", "docs/gates", "docs/report", "docs/adapters", "docs/by-hand"],
    "Serve it": ["docs/serving", "docs/serving-targets", "docs/gitops", "docs/model-repository"],
    "Run it": [
        "docs/install",
        "charts/skillupdate/README",
        "docs/storage",
        "docs/operations",
        "docs/kubectl-skill",
        "docs/troubleshooting",
        "docs/dashboards",
        "docs/alerts",
        "docs/metrics",
        "docs/admission",
        "docs/security",
        "docs/multi-node",
        "docs/scale",
    ],
    "How it is built": [
        "docs/operator",
        "docs/reliability",
        "docs/evidence",
        "ARCHITECTURE",
        "CONTRIBUTING",
        "SECURITY",
        "docs/cluster",
        "docs/decisions/README",
        "CHANGELOG",
    ],
}
"""The navigation, by what somebody wants to do. A page that is in none of them comes after these."""

project = "skillupdate"
root_doc = HOME
include_patterns = ["*.md", "docs/*.md", "docs/decisions/*.md", "docs/examples/*.md", "charts/*/*.md"]
exclude_patterns = [".venv", "build", "demo-output"]
extensions = ["myst_parser", "sphinxcontrib.mermaid"]

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]
mermaid_height = "auto"
nitpicky = True
smartquotes = False
# Shortened JSON (`…`) is no mistake of a page; generated tables have headings of the fourth level below the second.
suppress_warnings = ["misc.highlighting_failure", "myst.header"]

html_theme = "furo"
html_title = "skillupdate"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_extra_path = ["site/index.html"]
html_theme_options = {"top_of_page_buttons": []}


def setup(app: Sphinx) -> None:
    """Gives the home page, which is a README for everybody else, the navigation; and HTML in pages its pictures."""
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _copy_pictures)


def _add_navigation(app: Sphinx, name: str, source: list[str]) -> None:
    if name == HOME:
        named = {HOME}.union(*CHAPTERS.values())
        rest = sorted(page for page in app.env.found_docs - named if not page.startswith(DECISIONS))
        chapters = CHAPTERS | ({"Further": rest} if rest else {})
        source[0] += "".join(_toctree(caption, pages) for caption, pages in chapters.items())
    elif name == f"{DECISIONS}README":
        source[0] += "\n```{toctree}\n:glob:\n:titlesonly:\n\n[0-9]*\n```\n"


def _toctree(caption: str, pages: list[str]) -> str:
    listed = "\n".join(f"/{page}" for page in pages)
    return f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:titlesonly:\n\n{listed}\n```\n"


def _copy_pictures(app: Sphinx, failed: Exception | None) -> None:
    """Sphinx sees no `<img>` of ours, which `<picture>` needs for light and dark."""
    if not failed:
        shutil.copytree(Path(app.srcdir) / "docs/images", Path(app.outdir) / "docs/images", dirs_exist_ok=True)
