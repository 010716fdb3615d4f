"""The parts of a document that are written by a program: what stands between a pair of markers."""

from __future__ import annotations

import re
from pathlib import Path


def part(page: Path, name: str) -> str:
    """Returns what stands between a part's markers."""
    return _match(page.read_text(), page, name)[1]


def write(page: Path, name: str, text: str) -> None:
    """Replaces it."""
    before = page.read_text()
    match = _match(before, page, name)
    page.write_text(f"{before[: match.start(1)]}{text}\n{before[match.end(1) :]}")


def _match(text: str, page: Path, name: str) -> re.Match[str]:
    match = re.search(rf"<!-- {name}:begin -->\n(.*?)<!-- {name}:end -->", text, re.DOTALL)
    assert match, f"{page} has no place for {name}"
    return match
