"""`contains`: the expected words stand somewhere in the answer, as whole words, after normalisation."""

from __future__ import annotations

import re

from skill_trainer.graders.grader import Grader
from skill_trainer.graders.normalization import normalize


def _problem(expected: str) -> str:
    if normalize(expected):
        return ""
    return f"has no letter or digit to look for ({expected!r}): give the words that a right answer contains"


def _right(text: str, expected: str) -> bool:
    words = normalize(expected)
    return bool(words) and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", normalize(text)) is not None


GRADER = Grader("contains", _right, _problem)
