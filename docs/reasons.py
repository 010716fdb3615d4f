"""Writes the table of docs/troubleshooting.md from the words that `kubectl skill explain` says: `make reasons`.

A test holds the page against them.
"""

from __future__ import annotations

import re
from pathlib import Path

from kubectl_skill.reasons import table

PAGE = Path(__file__).parent / "troubleshooting.md"
BLOCK = re.compile(r"(<!-- reasons:begin[^\n]*-->\n).*?(<!-- reasons:end -->)", re.DOTALL)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(BLOCK.sub(lambda block: block[1] + table() + block[2], PAGE.read_text()))


if __name__ == "__main__":
    main()
