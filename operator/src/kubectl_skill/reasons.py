"""The words about every reason, from reasons.toml beside this file: for `explain`, and for docs/troubleshooting.md.

Pure but for that one file, which is part of the package.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources

from skill_contract.model import Document

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")


class Words(Document):
    """What is said about one reason, in Markdown of one line."""

    where: str
    """Where it is seen: phases, conditions."""
    means: str
    do: str


@cache
def all_words() -> dict[str, Words]:
    """Returns what is said about each reason, sorted by its name."""
    text = resources.files("kubectl_skill").joinpath("reasons.toml").read_text(encoding="utf-8")
    return {reason: Words.parse(words) for reason, words in tomllib.loads(text).items()}


def plain(markdown: str) -> str:
    """Returns a line of Markdown for a terminal: a link to a page of the documentation becomes its path."""
    return LINK.sub(lambda link: _target(link[1], link[2]), markdown).replace("`", "")


def _target(words: str, target: str) -> str:
    page, _, chapter = target.partition("#")
    place = page if "://" in page else f"docs/{page}"
    place += f"#{chapter}" if chapter else ""
    return place if words in {page, target} else f"{words} ({place})"


def table() -> str:
    """Returns the Markdown table of all reasons."""
    head = "| reason | where it is seen | what it means | what to do |\n| --- | --- | --- | --- |\n"
    return head + "".join(f"| `{reason}` | {w.where} | {w.means} | {w.do} |\n" for reason, w in all_words().items())
