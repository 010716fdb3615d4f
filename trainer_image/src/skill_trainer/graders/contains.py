"""`contains`: the expected words stand somewhere in the answer, as whole words, after normalisation."""

from __future__ import annotations

import re
import unicodedata

from skill_trainer.graders.grader import Grader
from skill_trainer.graders.normalization import normalize


def _problem(expected: str) -> str:
    if normalize(expected):
        return ""
    return f"has no letter or digit to look for ({expected!r}): give the words that a right answer contains"


def _right(text: str, expected: str) -> bool:
    words = normalize(expected)
    if not words:
        return False
    before = r"(?<!\w)" if _ends_a_word(words[0]) else ""
    after = r"(?!\w)" if _ends_a_word(words[-1]) else ""
    return re.search(f"{before}{re.escape(words)}{after}", normalize(text)) is not None


def _ends_a_word(letter: str) -> bool:
    """Scripts without upper and lower case write words without spaces (Chinese, Thai) or join others to them."""
    return unicodedata.category(letter) != "Lo"


GRADER = Grader("contains", _right, _problem)
